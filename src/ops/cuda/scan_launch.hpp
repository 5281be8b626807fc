// The engine's GPU kernels of one cell and storage, by name: what is compiled, and how many threads
// it takes. One method a kernel of include/pararnn/cuda/.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/types.h>

#include <compare>
#include <string>

#include "pararnn/cuda/problem.hpp"

namespace pararnn {
struct CellDefinition;
}

namespace pararnn::cuda {

/// Of the current device. Throws Error if there is none.
int multiprocessor_count();

/// Neighbouring channels that a thread holds, and that a load brings: two for each of two threads
/// where numbers of two bytes are to come through the forward pass's ring.
struct Width {
  int thread = 1, load = 1;
  auto operator<=>(const Width&) const = default;
};

/// How a pass over all lanes runs them.
struct ForwardMode {
  bool burn_in, write, linearize;
  auto operator<=>(const ForwardMode&) const = default;
};

class ScanLauncher {
 public:
  /// Kernels for tensors of `type`, on a stream of the current device.
  ScanLauncher(const std::string& cell, torch::ScalarType type, Width width, cudaStream_t stream);

  void forward_pass(const ForwardProblem& problem, ForwardMode mode) const;
  /// A sequence of one step, without checkpoints.
  void decode_step(const ForwardProblem& problem) const;
  void forward_scan(const ForwardProblem& problem) const;
  void forward_correct(const ForwardProblem& problem) const;
  void forward_mismatch(const ForwardProblem& problem) const;
  void backward_pass(const BackwardProblem& problem, BackwardMode mode) const;
  void backward_scan(const BackwardProblem& problem) const;
  void backward_correct(const BackwardProblem& problem) const;
  void backward_mismatch(const BackwardProblem& problem) const;
  /// Writes dw (P,D).
  void sum_parts(const BackwardProblem& problem) const;

 private:
  const CellDefinition& cell_;
  torch::ScalarType type_;
  Width width_;
  cudaStream_t stream_;
};

}  // namespace pararnn::cuda
