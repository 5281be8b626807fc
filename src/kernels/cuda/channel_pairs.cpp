#include "kernels/cuda/channel_pairs.hpp"

namespace pararnn::kernels {

bool comes_in_pairs(const Tensor& t) {
  const auto address = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  if (t.size(-1) % 2 != 0 || address % (2 * t.element_size()) != 0) return false;
  if (t.size(-1) > 0 && t.stride(-1) != 1) return false;
  for (int64_t i = 0; i + 1 < t.dim(); ++i) {
    if (t.stride(i) % 2 != 0) return false;
  }
  return true;
}

Tensor aligned_for(int width, const Tensor& t) {
  if (width == 1 || comes_in_pairs(t)) return t.borrowed();
  using torch::headeronly::MemoryFormat;
  return call<1>("aten::clone", t, std::optional(MemoryFormat::Contiguous))[0];
}

}  // namespace pararnn::kernels
