// The internal operators below `scan`, one implementation a device, and what they share: checked
// arguments and the last statistics.
#pragma once

#include "ops/scan.hpp"

namespace pararnn {

/// The sizes of a scan whose arguments have been checked.
struct ScanSizes {
  int64_t batch, steps, inputs, channels, heads;
  int64_t state, params;
};

/// Checks u (B,T,U,D) or (B,T,H,U,D/H), w (P,D), h0 (B,S,D) against the cell; throws Error with a
/// sentence that names the argument and what it should be.
ScanSizes check_scan_arguments(const torch::Tensor& u, const torch::Tensor& w,
                               const std::optional<torch::Tensor>& h0, const std::string& cell);

/// fp32 for fp16, bf16 and fp32; fp64 for fp64.
torch::ScalarType arithmetic_type(torch::ScalarType type);

/// Checkpoints of the state that the forward pass leaves for the backward: ceil(T / 16).
int64_t checkpoint_count(int64_t steps);

/// Keeps what last_scan_statistics() returns.
void record_forward_statistics(const ScanStatistics& statistics);
void record_backward_statistics(const ScanStatistics& statistics);

}  // namespace pararnn
