// The arguments of the operators, checked: each wrong one gets one sentence that names it. And the
// tensors of a pass, as the engine reads and writes them.
#pragma once

#include "cells/cell_definition.hpp"
#include "kernels/scan_options.hpp"
#include "kernels/torch_stable.hpp"
#include "pararnn/sequences.hpp"

namespace pararnn::kernels {

/// The sizes of a scan whose arguments have been checked.
struct ScanSizes {
  int64_t batch, steps, inputs, channels, heads;
  int64_t state, params;
  int64_t sequences;  // N of h0 and hT (N,S,D): B, or as many as are packed in the only row
};

/// Where states start anew within a row; at most one of the two.
struct SequenceTensors {
  std::optional<Tensor> cu_seqlens;  // (N+1), int32: steps [cu_seqlens[n], cu_seqlens[n+1]) of the
                                     // only row are sequence n
  std::optional<Tensor> reset;       // (B,T), bool: the state is zero before this step
};
/// As the engine reads them.
Sequences sequences_of(const SequenceTensors& tensors);

/// Where the numbers of a tensor (B,T,N,D), (B,T,H,N,D/H) or (B,T,D) are, in elements. Of a step,
/// which has no axis T, too.
struct Strides {
  int64_t batch, step, component, head;
  int64_t head_width;
};
/// `axes` before the components: 2 with an axis T, or 1.
Strides strides_of(const Tensor& t, int axes = 2);

/// fp32 for fp16, bf16 and fp32; fp64 for fp64.
ScalarType arithmetic_type(ScalarType type);

/// `wanted` if it is positive, or for 0 the default of the arithmetic. Throws Error unless
/// 0 <= wanted <= kLargestTolerance.
double tolerance_for(double wanted, ScalarType arithmetic);

/// Steps from one checkpoint of the state to the next, on the device of a tensor.
int64_t checkpoint_interval_on(const Tensor& t);

/// Checkpoints that the forward pass leaves for the backward: ceil(steps / interval), or none for
/// an interval of 0.
int64_t checkpoint_count(int64_t steps, int64_t interval);

/// Checks u (B,T,U,D) or (B,T,H,U,D/H), or of a step without T, w (P,D), h0 (B,S,D), or (N,S,D) of
/// N sequences, against the cell; throws Error with a sentence that names the argument and what it
/// should be. What lengths a GPU has is not looked at, as the host would have to wait.
ScanSizes check_scan_arguments(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                               const CellDefinition& cell, int axes = 2,
                               const SequenceTensors& sequences = {});

/// The tensors of a forward pass, checked: inputs as the engine reads them (channels are
/// neighbours; w and h0 contiguous, in the arithmetic's dtype), and the outputs.
struct ForwardTensors {
  ScanSizes sizes;
  ScalarType arithmetic;
  Tensor u, w;
  std::optional<Tensor> h0;
  Tensor y, hT;
  std::optional<Tensor> checkpoints;
  SequenceTensors sequences;
};
/// What a forward pass is asked for.
struct ForwardRequest {
  int axes = 2;                                  // of batch and time: 2 of a scan, 1 of a step
  std::optional<int64_t> checkpoint_interval{};  // none: no tensor of checkpoints either
  SequenceTensors sequences{};
};
/// Outputs are not initialised, except those of a scan of no numbers, which is complete. Throws
/// Error as check_scan_arguments, and for an interval other than 0 or the device's.
ForwardTensors forward_tensors(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                               const CellDefinition& cell, const ForwardRequest& request);

/// The same for a backward pass: dy (B,T,D) in u's dtype, dhT like hT, and the checkpoints of the
/// forward pass on the same device.
struct BackwardTensors {
  ScanSizes sizes;
  ScalarType arithmetic;
  Tensor u, w, checkpoints, dy, dhT, du, dw, dh0;
  std::optional<Tensor> h0;
  SequenceTensors sequences;
};
/// Where states start anew in the forward pass, and from what.
struct BackwardRequest {
  std::optional<Tensor> h0{};
  SequenceTensors sequences{};
};
BackwardTensors backward_tensors(const Tensor& u, const Tensor& w, const Tensor& checkpoints,
                                 const Tensor& dy, const Tensor& dhT, const CellDefinition& cell,
                                 const BackwardRequest& request = {});

}  // namespace pararnn::kernels
