// The operators: `scan` runs a cell over a sequence in parallel, `step` advances it by one step.
//
// Layout. u is (B,T,U,D): for each step and channel the cell's U pre-activations, or (B,T,H,U,D/H)
// as a block-diagonal projection over H heads writes them; channel d of head h is h·D/H + d. Any
// strides of B, T, H and U are taken as they are; channels must be contiguous (otherwise u is
// copied once). w is (P,D), the states are (B,S,D), y is (B,T,D).
//
// Arithmetic is fp32 for fp16, bf16 and fp32 tensors, and fp64 for fp64. States (h0, hT) are kept
// in the arithmetic's dtype, so a sequence cut in two gives what the whole gives.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "kernels/scan_options.hpp"

namespace pararnn {

/// Where states start anew within a row; at most one of the two.
struct ScanSequences {
  /// (N+1), int32, from 0 to T: N sequences, steps [cu_seqlens[n], cu_seqlens[n+1]) of the only row
  /// each. h0 and hT are (N,S,D), of each sequence.
  std::optional<torch::Tensor> cu_seqlens = {};
  /// (B,T), bool: the state is zero before this step.
  std::optional<torch::Tensor> reset = {};
};

/// Runs `cell` over T steps: h_t = f(h_{t-1}, u_t; w), y_t = component 0 of h_t.
/// u (B,T,U,D) or (B,T,H,U,D/H); w (P,D); h0 (B,S,D), or none for zeros.
/// Returns y (B,T,D) in u's dtype and hT (B,S,D) in the arithmetic's dtype.
/// Differentiable in u, w and h0, from y and hT. Throws Error on a wrong cell, shape, dtype or
/// device, and on a CPU on lengths that are none; on a GPU, which would have to be waited for, all
/// results are NaN then.
std::tuple<torch::Tensor, torch::Tensor> scan(const torch::Tensor& u, const torch::Tensor& w,
                                              const std::optional<torch::Tensor>& h0,
                                              const std::string& cell,
                                              const ScanOptions& options = {},
                                              const ScanSequences& sequences = {});

/// One step, for decoding: u (B,U,D) or (B,H,U,D/H), w (P,D), h (B,S,D) -> y (B,D), h (B,S,D).
/// No gradient.
std::tuple<torch::Tensor, torch::Tensor> step(const torch::Tensor& u, const torch::Tensor& w,
                                              const torch::Tensor& h, const std::string& cell);

/// Statistics of the last forward and the last backward scan of this process.
std::pair<ScanStatistics, ScanStatistics> last_scan_statistics();

}  // namespace pararnn
