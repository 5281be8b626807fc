// The internal operators below `scan`, one implementation a device, and what they share: checked
// arguments and the last statistics.
//
//   _scan_forward   y, hT, checkpoints of the state, and whether most columns remembered for longer
//                   than the burn-in, where that is known at once: not on a GPU
//   _scan_tangent   dy, dhT along du, dw, dh0; for all devices
//   _scan_backward  du in u's dtype, dw and dh0 in the arithmetic's, from the checkpoints
//
// Python can call them, so they check all that they are given. They take w as the caller keeps it,
// in any dtype: its address tells a GPU's calls apart (ops/cuda/plan_trial.hpp), which that of a
// converted copy would not.
#pragma once

#include <functional>

#include "ops/scan.hpp"
#include "pararnn/statistics.hpp"

namespace pararnn {

/// The sizes of a scan whose arguments have been checked.
struct ScanSizes {
  int64_t batch, steps, inputs, channels, heads;
  int64_t state, params;
};

/// Checks u (B,T,U,D) or (B,T,H,U,D/H), w (P,D), h0 (B,S,D) against the cell; throws Error with a
/// sentence that names the argument and what it should be. A tensor with a tangent of forward-mode
/// differentiation is refused, here and below.
ScanSizes check_scan_arguments(const torch::Tensor& u, const torch::Tensor& w,
                               const std::optional<torch::Tensor>& h0, const std::string& cell);

/// fp32 for fp16, bf16 and fp32; fp64 for fp64.
torch::ScalarType arithmetic_type(torch::ScalarType type);

/// `wanted` if it is positive, or for 0 the default of the arithmetic. Throws Error unless
/// 0 <= wanted <= kLargestTolerance.
double tolerance_for(double wanted, torch::ScalarType arithmetic);

/// Steps from one checkpoint of the state to the next, on a device.
int64_t checkpoint_interval_on(const torch::Device& device);

/// Checkpoints that the forward pass leaves for the backward: ceil(steps / interval), or none for
/// an interval of 0.
int64_t checkpoint_count(int64_t steps, int64_t interval);

/// The tensor itself if neighbours in the last dimension are neighbours in memory, or a copy.
torch::Tensor with_neighbouring_channels(const torch::Tensor& t);

/// The tensors of a forward pass, checked: inputs as the engine reads them (channels are
/// neighbours; w and h0 contiguous, in the arithmetic's dtype), and the outputs.
struct ForwardTensors {
  ScanSizes sizes;
  torch::Tensor u, w;
  std::optional<torch::Tensor> h0;
  torch::Tensor y, hT, checkpoints;
};
/// Outputs are not initialised, except those of a scan of no numbers, which is complete. Throws
/// Error as check_scan_arguments, and for an interval other than 0 or the device's.
ForwardTensors forward_tensors(const torch::Tensor& u, const torch::Tensor& w,
                               const std::optional<torch::Tensor>& h0, const std::string& cell,
                               int64_t checkpoint_interval);

/// The same for a backward pass: dy (B,T,D) in u's dtype, dhT (B,S,D), and the checkpoints of the
/// forward pass on the same device.
struct BackwardTensors {
  ScanSizes sizes;
  torch::Tensor u, w, checkpoints, dy, dhT, du, dw, dh0;
};
BackwardTensors backward_tensors(const torch::Tensor& u, const torch::Tensor& w,
                                 const torch::Tensor& checkpoints, const torch::Tensor& dy,
                                 const torch::Tensor& dhT, const std::string& cell);

/// _scan_forward and _scan_backward, of the device that the tensors are on.
std::tuple<torch::Tensor, torch::Tensor, torch::Tensor, bool> call_scan_forward(
    const torch::Tensor& u, const torch::Tensor& w, const std::optional<torch::Tensor>& h0,
    const std::string& cell, const ScanOptions& options, int64_t checkpoint_interval);
std::tuple<torch::Tensor, torch::Tensor, torch::Tensor> call_scan_backward(
    const torch::Tensor& u, const torch::Tensor& w, const torch::Tensor& checkpoints,
    const torch::Tensor& dy, const torch::Tensor& dhT, const std::string& cell,
    const ScanOptions& options);

/// Whether a tensor has a tangent of forward-mode differentiation.
bool has_tangent(const torch::Tensor& t);

/// The tangent of scan along (du, dw, dh0), of the shapes of u, w and h0: dy (B,T,D) and dhT
/// (B,S,D). Throws Error for a cell of more than 16 states, inputs and parameters, whose tangent is
/// no cell.
std::tuple<torch::Tensor, torch::Tensor> scan_tangent(
    const torch::Tensor& u, const torch::Tensor& w, const std::optional<torch::Tensor>& h0,
    const torch::Tensor& du, const torch::Tensor& dw, const std::optional<torch::Tensor>& dh0,
    const std::string& cell, const ScanOptions& options);

/// scan of tensors of which some have a tangent.
std::tuple<torch::Tensor, torch::Tensor> scan_of_duals(const torch::Tensor& u,
                                                       const torch::Tensor& w,
                                                       const std::optional<torch::Tensor>& h0,
                                                       const std::string& cell,
                                                       const ScanOptions& options);

/// The engine's statistics as callers see them.
inline ScanStatistics public_statistics(const Statistics& s) {
  return {std::string(way_name(s.plan.way)),
          s.plan.chunk,
          s.plan.chunks,
          s.plan.burn_in,
          s.largest_mismatch,
          s.newton_iterations,
          s.columns,
          s.columns_corrected,
          s.columns_repaired};
}

/// Reads the statistics of a pass, once it is asked for.
using ReadStatistics = std::function<ScanStatistics()>;

/// Keeps what last_scan_statistics() returns.
void record_forward_statistics(ReadStatistics read);
void record_backward_statistics(ReadStatistics read);

}  // namespace pararnn
