// The engine's GPU kernels of one cell and storage, compiled when they are first needed, on a
// stream: a launcher as include/pararnn/cuda/launcher.hpp asks for one.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/headeronly/core/ScalarType.h>

#include <span>
#include <string_view>

#include "cells/cell_definition.hpp"
#include "pararnn/cuda/kernel_list.hpp"

namespace pararnn::cuda {

/// The name in a kernel of the numbers of a dtype.
std::string_view storage_name(torch::headeronly::ScalarType type);

class ScanLauncher {
 public:
  /// Kernels for tensors of `type`, on a stream of the current device, which is number `device`.
  /// The cell is one of the registry's, which stays.
  ScanLauncher(const CellDefinition& cell, torch::headeronly::ScalarType type, int device,
               cudaStream_t stream);

  int multiprocessors() const { return multiprocessors_; }
  /// Compiles and loads those that are not there yet, side by side.
  void prepare(std::span<const Kernel> kernels) const;
  void launch(const Kernel& kernel, const ForwardProblem& problem) const;
  void launch(const Kernel& kernel, const BackwardProblem& problem) const;
  /// Waits for what was launched on the stream.
  Counters read(const Counters* counters) const;

 private:
  template <class Problem>
  void launch_any(const Kernel& kernel, const Problem& problem) const;

  const CellDefinition& cell_;
  torch::headeronly::ScalarType type_;
  int device_;
  cudaStream_t stream_;
  int multiprocessors_;
};

}  // namespace pararnn::cuda
