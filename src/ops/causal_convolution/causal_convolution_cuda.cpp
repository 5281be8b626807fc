#include "ops/causal_convolution/causal_convolution_cuda.hpp"

#include <algorithm>

#include "ops/causal_convolution/causal_convolution_problem.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/row_sum/row_sum.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// As many channels as one access takes, but no more weights than registers hold.
int convolution_pack(int64_t tap_count, int most_weights, std::initializer_list<Tensor> tensors) {
  int pack = access_width(tensors);
  while (pack > 1 &&
         (pack * (*tensors.begin()).element_size() > 16 || pack * tap_count > most_weights)) {
    pack /= 2;
  }
  return pack;
}

/// Pieces of one length, as many as have room at once; but long ones, as each reads the inputs
/// before it too, and the backward pass has a sum for it.
ConvolutionExtent extent_of(const Tensor& x, int pack, int64_t blocks) {
  constexpr int64_t kFewestSteps = 16;
  ConvolutionExtent extent{x.size(0), x.size(1), static_cast<int>(x.size(2)), 0, 0};
  const int64_t warps = multiprocessors_of(x) * blocks * kConvolutionWarps;
  const int64_t pieces = std::clamp<int64_t>(warps / extent.groups_of_channels(pack) / extent.batch,
                                             1, (extent.steps + kFewestSteps - 1) / kFewestSteps);
  extent.piece_steps = (extent.steps + pieces - 1) / pieces;
  extent.pieces = (extent.steps + extent.piece_steps - 1) / extent.piece_steps;
  return extent;
}

const unsigned char* bytes_of(const Tensor& reset) {
  return reset.defined() ? reinterpret_cast<const unsigned char*>(reset.const_data_ptr<bool>())
                         : nullptr;
}

void launch_convolution(const char* name, const Tensor& x, const Tensor& taps, int pack,
                        const auto& problem, const char* more = "") {
  launch_kernel("causal_convolution/causal_convolution_kernel.hpp",
                fmt::format("{}<{}, {}, {}, {}, {}{}>", name, storage_name(x.scalar_type()),
                            storage_name(taps.scalar_type()), pack, taps.size(0),
                            problem.reset != nullptr, more),
                x, problem.extent.blocks_of_pieces() * problem.extent.groups_of_channels(pack),
                kConvolutionThreads, problem);
}

ConvolutionEnd end_of(const Tensor& bias) {
  return bias.defined() ? ConvolutionEnd::kSilu : ConvolutionEnd::kSum;
}

/// The bias as the kernels read it, in the dtype of the taps.
Tensor as_taps(const Tensor& bias, const Tensor& taps) {
  return bias.defined() ? bias.to(taps.scalar_type()).contiguous() : bias;
}
const void* pointer_of(const Tensor& bias) { return bias.defined() ? bias.data_ptr() : nullptr; }

}  // namespace

void convolution_forward_cuda(const Tensor& x, const Tensor& taps, const Tensor& before,
                              const Tensor& reset, const Tensor& bias, const Tensor& y) {
  const Tensor weights = taps.contiguous(), biases = as_taps(bias, taps);
  const ConvolutionEnd end = end_of(bias);
  const int pack = convolution_pack(taps.size(0), kForwardWeights, {x, weights, before, biases, y});
  launch_convolution("convolution_forward", x, weights, pack,
                     ConvolutionForward{.extent = extent_of(x, pack, forward_blocks(end)),
                                        .x_batch_stride = x.stride(0),
                                        .x_step_stride = x.stride(1),
                                        .x = x.data_ptr(),
                                        .taps = weights.data_ptr(),
                                        .before = before.data_ptr(),
                                        .reset = bytes_of(reset),
                                        .y = y.data_ptr(),
                                        .bias = pointer_of(biases)},
                     end == ConvolutionEnd::kSilu ? ", pararnn::ops::ConvolutionEnd::kSilu" : "");
}

std::pair<Tensor, Tensor> convolution_backward_cuda(const Tensor& x, const Tensor& taps,
                                                    const Tensor& before, const Tensor& reset,
                                                    const Tensor& bias, const Tensor& dy,
                                                    const Tensor& dx, const Tensor& dbefore) {
  const Tensor weights = taps.contiguous(), biases = as_taps(bias, taps);
  const ConvolutionEnd end = end_of(bias);
  const int64_t tap_count = taps.size(0), sums = tap_count + (bias.defined() ? 1 : 0);
  const int pack = convolution_pack(tap_count, backward_weights(end),
                                    {x, weights, before, biases, dy, dx, dbefore});
  const ConvolutionExtent extent = extent_of(x, pack, backward_blocks(end));
  const Tensor partial =
      torch::empty({extent.blocks_of_pieces(), sums, x.size(2)}, x.options().dtype(torch::kFloat));
  launch_convolution(bias.defined() ? "convolution_silu_backward" : "convolution_backward", x,
                     weights, pack,
                     ConvolutionBackward{.extent = extent,
                                         .x_batch_stride = x.stride(0),
                                         .x_step_stride = x.stride(1),
                                         .dy_batch_stride = dy.stride(0),
                                         .dy_step_stride = dy.stride(1),
                                         .x = x.data_ptr(),
                                         .taps = weights.data_ptr(),
                                         .before = before.data_ptr(),
                                         .dy = dy.data_ptr(),
                                         .reset = bytes_of(reset),
                                         .dx_batch_stride = dx.stride(0),
                                         .dx_step_stride = dx.stride(1),
                                         .dx = dx.data_ptr(),
                                         .dbefore = dbefore.data_ptr(),
                                         .sums = partial.data_ptr<float>(),
                                         .bias = pointer_of(biases)});
  if (!bias.defined()) return {sum_of_rows(partial, taps.scalar_type()), Tensor()};
  const Tensor total =
      sum_of_rows(partial, torch::promote_types(taps.scalar_type(), bias.scalar_type()));
  return {total.narrow(0, 0, tap_count).to(taps.scalar_type()),
          total[tap_count].to(bias.scalar_type())};
}

}  // namespace pararnn::ops
