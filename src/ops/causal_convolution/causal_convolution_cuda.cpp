#include "ops/causal_convolution/causal_convolution_cuda.hpp"

#include <algorithm>

#include "ops/causal_convolution/causal_convolution_problem.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/rows_problem.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// A thread keeps four packs of each tap: packs of 8 channels would leave few threads room.
int convolution_pack(std::initializer_list<Tensor> tensors) {
  return std::min(4, access_width(tensors));
}

void launch_convolution(const char* name, const Tensor& x, const Tensor& taps, int pack,
                        const auto& problem) {
  const int64_t threads = x.size(0) * pieces_of(x.size(1)) * (x.size(2) / pack);
  launch_kernel("causal_convolution/causal_convolution_kernel.hpp",
                fmt::format("{}<{}, {}, {}, {}>", name, storage_name(x.scalar_type()),
                            storage_name(taps.scalar_type()), pack, taps.size(0)),
                x, (threads + kRowBlockThreads - 1) / kRowBlockThreads, kRowBlockThreads, problem);
}

}  // namespace

void convolution_forward_cuda(const Tensor& x, const Tensor& taps, const Tensor& before,
                              const Tensor& y) {
  const Tensor weights = taps.contiguous();
  launch_convolution("convolution_forward", x, weights, convolution_pack({x, weights, before, y}),
                     ConvolutionForward{x.size(0), x.size(1), static_cast<int>(x.size(2)),
                                        x.stride(0), x.stride(1), x.data_ptr(), weights.data_ptr(),
                                        before.data_ptr(), y.data_ptr()});
}

Tensor convolution_backward_cuda(const Tensor& x, const Tensor& taps, const Tensor& before,
                                 const Tensor& dy, const Tensor& dx, const Tensor& dbefore) {
  const Tensor weights = taps.contiguous();
  const Tensor partial = torch::empty({x.size(0) * pieces_of(x.size(1)), taps.size(0), x.size(2)},
                                      x.options().dtype(torch::kFloat));
  launch_convolution(
      "convolution_backward", x, weights, convolution_pack({x, weights, before, dy, dx, dbefore}),
      ConvolutionBackward{x.size(0), x.size(1), static_cast<int>(x.size(2)), x.stride(0),
                          x.stride(1), dy.stride(0), dy.stride(1), x.data_ptr(), weights.data_ptr(),
                          before.data_ptr(), dy.data_ptr(), dx.data_ptr(), dbefore.data_ptr(),
                          partial.data_ptr<float>()});
  return partial.sum(0);
}

}  // namespace pararnn::ops
