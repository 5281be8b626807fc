// Sequence mixers beside which the engine is timed on a GPU, each on random inputs of its own. They
// run on any device.
#pragma once

#include <torch/types.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/options.hpp"

namespace pararnn::bench {

/// A mixer with its inputs and weights.
struct Baseline {
  std::function<torch::Tensor()> run;  // the output
  std::vector<torch::Tensor> leaves;   // what it is differentiated by
  torch::Tensor gradient;              // of the output

  void forward() const;
  void forward_backward() const;
};

struct BaselineKind {
  const char* name;
  bool of_cell;        // it computes the engine's cell, or the dense one of that name
  int growth;          // its time grows with steps to this power
  bool captured;       // timed in a CUDA graph, otherwise launched by the host
  int64_t most_steps;  // longer sequences are not tried
  /// Throws Error for a cell that it does not have.
  Baseline (*make)(const std::string& cell, const BenchShape& shape, torch::ScalarType dtype,
                   torch::Device device);
};

/// Loop of ops, the same captured, cuDNN, attention, SSD.
std::span<const BaselineKind> baseline_kinds();

}  // namespace pararnn::bench
