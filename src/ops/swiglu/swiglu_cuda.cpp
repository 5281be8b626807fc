#include "ops/swiglu/swiglu_cuda.hpp"

#include <algorithm>

#include "ops/cuda_kernels.hpp"
#include "ops/rows_problem.hpp"
#include "ops/swiglu/swiglu_problem.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

constexpr int64_t kSwigluBlocks = 64;  // for each multiprocessor, at most

void launch_swiglu(const char* name, const Tensor& x, int64_t width, int pack,
                   const auto& problem) {
  const int64_t packs = x.size(0) * (width / pack);
  const int64_t blocks = std::min((packs + kRowBlockThreads - 1) / kRowBlockThreads,
                                  kSwigluBlocks * multiprocessors_of(x));
  launch_kernel("swiglu/swiglu_kernel.hpp",
                fmt::format("{}<{}, {}>", name, storage_name(x.scalar_type()), pack), x, blocks,
                kRowBlockThreads, problem);
}

}  // namespace

void swiglu_forward_cuda(const Tensor& x, const Tensor& y) {
  const int64_t width = y.size(-1);
  launch_swiglu(
      "swiglu_forward", x, width, access_width({x.narrow(-1, 0, width), y}),
      SwigluForward{x.size(0), static_cast<int>(width), x.stride(0), x.data_ptr(), y.data_ptr()});
}

void swiglu_backward_cuda(const Tensor& x, const Tensor& dy, const Tensor& dx) {
  const int64_t width = dy.size(-1);
  launch_swiglu("swiglu_backward", x, width, access_width({x.narrow(-1, 0, width), dy}),
                SwigluBackward{x.size(0), static_cast<int>(width), x.stride(0), dy.stride(0),
                               x.data_ptr(), dy.data_ptr(), dx.data_ptr()});
}

}  // namespace pararnn::ops
