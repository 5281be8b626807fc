// The functions of decode_mamba2.hpp by the kernels of decode_mamba2_kernel.hpp.
#pragma once

#include <string>

#include "ops/decode/decode_mamba2.hpp"

namespace pararnn::ops {

Mamba2Inputs decode_mamba2_input_cuda(const DecodeInput& input, const torch::Tensor& weight,
                                      const torch::Tensor& taps, const torch::Tensor& bias,
                                      const torch::Tensor& step_bias, const torch::Tensor& before);
DecodeInput decode_mamba2_state_cuda(const Mamba2Inputs& inputs, const torch::Tensor& decay_log,
                                     const torch::Tensor& skip, const torch::Tensor& state,
                                     const torch::Tensor& norm_weight, double epsilon);

/// How a state of so many channels and components is cut: kLanes, kPacks and kChannels of the
/// kernel, and its blocks for a row.
struct Mamba2StatePlan {
  int64_t lanes, packs, channels, blocks;

  /// "32, 1, 4": the template arguments.
  std::string arguments() const;
};
Mamba2StatePlan plan_decode_mamba2_state(int64_t batch, int64_t channels, int64_t components,
                                         int64_t multiprocessors);

}  // namespace pararnn::ops
