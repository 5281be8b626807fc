// A scan on tensors, forward and backward, on the device that they are on: the plan, the arrays of
// its chunks, and the engine's kernels. No derivatives here: those above call both directions.
#pragma once

#include "kernels/scan_arguments.hpp"

namespace pararnn::kernels {

struct ForwardResults {
  Tensor y, hT;
  std::optional<Tensor> checkpoints;  // if they were asked for
  /// Whether most columns remembered for longer than the burn-in, where that is known at once: not
  /// on a GPU.
  bool remembers = false;
};

struct BackwardResults {
  Tensor du, dw, dh0;  // du in u's dtype, dw and dh0 in the arithmetic's
};

/// Throws Error as forward_tensors, and for wrong options.
ForwardResults scan_forward(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                            const CellDefinition& cell, const ScanOptions& options,
                            const ForwardRequest& request);

/// How to run the backward pass of a forward pass. The adjoint forgets as the state does: where
/// that reached beyond the burn-in, so will this.
inline ScanOptions adjoint_options(ScanOptions options, bool remembers) {
  if (remembers && options.plan == "auto") options.plan = "newton";
  return options;
}

/// Throws Error as backward_tensors, and for wrong options.
BackwardResults scan_backward(const Tensor& u, const Tensor& w, const Tensor& checkpoints,
                              const Tensor& dy, const Tensor& dhT, const CellDefinition& cell,
                              const ScanOptions& options, const BackwardRequest& request = {});

/// The same on each device. They take w as the caller keeps it, in any dtype: its address tells a
/// GPU's calls apart (cuda/plan_trial.hpp), which that of a converted copy would not.
ForwardResults scan_forward_cpu(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                                const CellDefinition& cell, const ScanOptions& options,
                                const ForwardRequest& request);
ForwardResults scan_forward_cuda(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                                 const CellDefinition& cell, const ScanOptions& options,
                                 const ForwardRequest& request);
BackwardResults scan_backward_cpu(const Tensor& u, const Tensor& w, const Tensor& checkpoints,
                                  const Tensor& dy, const Tensor& dhT, const CellDefinition& cell,
                                  const ScanOptions& options, const BackwardRequest& request);
BackwardResults scan_backward_cuda(const Tensor& u, const Tensor& w, const Tensor& checkpoints,
                                   const Tensor& dy, const Tensor& dhT, const CellDefinition& cell,
                                   const ScanOptions& options, const BackwardRequest& request);

}  // namespace pararnn::kernels
