// The passes of the causal convolution by the kernels of causal_convolution_kernel.hpp.
#pragma once

#include <torch/types.h>

#include <utility>

namespace pararnn::ops {

/// The most taps that the kernels take: a thread holds them all.
inline constexpr int64_t kMostTaps = 8;

/// x (B,T,d) with contiguous channels, taps (K,d), before (B,K-1,d) and reset (B,T), contiguous, or
/// undefined; bias (d), with which y is behind silu, or undefined; writes y (B,T,d), contiguous.
void convolution_forward_cuda(const torch::Tensor& x, const torch::Tensor& taps,
                              const torch::Tensor& before, const torch::Tensor& reset,
                              const torch::Tensor& bias, const torch::Tensor& y);
/// dy (B,T,d) with contiguous channels; writes dx, with contiguous channels, and dbefore,
/// contiguous, and returns dtaps (K,d) and, with a bias, dbias (d).
std::pair<torch::Tensor, torch::Tensor> convolution_backward_cuda(
    const torch::Tensor& x, const torch::Tensor& taps, const torch::Tensor& before,
    const torch::Tensor& reset, const torch::Tensor& bias, const torch::Tensor& dy,
    const torch::Tensor& dx, const torch::Tensor& dbefore);

}  // namespace pararnn::ops
