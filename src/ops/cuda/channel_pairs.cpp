#include "ops/cuda/channel_pairs.hpp"

namespace pararnn {

bool comes_in_pairs(const torch::Tensor& t) {
  const auto address = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  if (t.size(-1) % 2 != 0 || address % (2 * t.element_size()) != 0) return false;
  if (t.size(-1) > 0 && t.stride(-1) != 1) return false;
  for (int64_t i = 0; i + 1 < t.dim(); ++i) {
    if (t.stride(i) % 2 != 0) return false;
  }
  return true;
}

torch::Tensor aligned_for(int width, const torch::Tensor& t) {
  if (width == 1 || comes_in_pairs(t)) return t;
  return t.clone(torch::MemoryFormat::Contiguous);
}

}  // namespace pararnn
