#include "ops/causal_convolution/causal_convolution_cuda.hpp"

#include <torch/autograd.h>

#include <algorithm>

#include "ops/causal_convolution/causal_convolution_problem.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

constexpr const char* kConvolutionFile = "causal_convolution/causal_convolution_kernel.hpp";
constexpr int kConvolutionThreads = 128;

/// A thread keeps four packs of each tap: packs of 8 channels would leave few threads room.
int convolution_pack(std::initializer_list<Tensor> tensors) {
  return std::min(4, access_width(tensors));
}

void launch_convolution(const char* name, const Tensor& x, const Tensor& taps, int pack,
                        const auto& problem) {
  const int64_t pieces = (x.size(1) + kPieceSteps - 1) / kPieceSteps;
  const int64_t threads = x.size(0) * pieces * (x.size(2) / pack);
  launch_kernel(kConvolutionFile,
                fmt::format("{}<{}, {}, {}, {}>", name, storage_name(x.scalar_type()),
                            storage_name(taps.scalar_type()), pack, taps.size(0)),
                x, (threads + kConvolutionThreads - 1) / kConvolutionThreads, kConvolutionThreads,
                problem);
}

struct ConvolutionOnCuda : torch::autograd::Function<ConvolutionOnCuda> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& input_taps, const Tensor& input_before) {
    const Tensor x = input.stride(2) == 1 ? input : input.contiguous();
    const Tensor taps = input_taps.contiguous(), before = input_before.contiguous();
    const Tensor y = torch::empty(x.sizes(), x.options());
    launch_convolution("convolution_forward", x, taps, convolution_pack({x, taps, before, y}),
                       ConvolutionForward{x.size(0), x.size(1), static_cast<int>(x.size(2)),
                                          x.stride(0), x.stride(1), x.data_ptr(), taps.data_ptr(),
                                          before.data_ptr(), y.data_ptr()});
    context->save_for_backward({x, taps, before});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &taps = saved[1], &before = saved[2];
    const Tensor dy = gradients[0].stride(2) == 1 ? gradients[0] : gradients[0].contiguous();
    const Tensor dx = torch::empty(x.sizes(), x.options());
    const Tensor dbefore = torch::empty(before.sizes(), before.options());
    const int64_t pieces = (x.size(1) + kPieceSteps - 1) / kPieceSteps;
    const Tensor dtaps = torch::empty({x.size(0) * pieces, taps.size(0), x.size(2)},
                                      x.options().dtype(torch::kFloat));
    launch_convolution(
        "convolution_backward", x, taps, convolution_pack({x, taps, before, dy, dx, dbefore}),
        ConvolutionBackward{x.size(0), x.size(1), static_cast<int>(x.size(2)), x.stride(0),
                            x.stride(1), dy.stride(0), dy.stride(1), x.data_ptr(), taps.data_ptr(),
                            before.data_ptr(), dy.data_ptr(), dx.data_ptr(), dbefore.data_ptr(),
                            dtaps.data_ptr<float>()});
    return {dx, dtaps.sum(0).to(taps.scalar_type()), dbefore};
  }
};

}  // namespace

Tensor convolution_on_cuda(const Tensor& x, const Tensor& taps, const Tensor& before) {
  return ConvolutionOnCuda::apply(x, taps, before);
}

}  // namespace pararnn::ops
