// The random problem of one measurement: LibTorch's tensors, which baselines take as well.
#pragma once

#include <torch/types.h>

#include <array>
#include <string>

#include "verdict/check_case.hpp"

namespace pararnn::bench {

/// Throws Error for a dtype that the operators do not have.
torch::ScalarType dtype_of(const std::string& name);

/// Shapes as in ops/scan/scan.hpp.
struct BenchProblem {
  torch::Tensor u, w, h0, dy, dhT;
};
struct BenchResults {
  std::array<torch::Tensor, 5> of;  // in the order of kResultNames
  torch::Tensor checkpoints;        // of the state, every kChunkUnit steps
};

/// A random problem as `pararnn check` has them, generated on a device.
BenchProblem random_problem_on(torch::Device device, const CheckCase& check);

/// Forward and backward, through the public operator with autograd.
BenchResults run_problem(const CheckCase& check, const BenchProblem& problem);

/// What `pararnn check` says of the first and the last `channels` channels of a result in the
/// arithmetic's dtype; nothing if they are right, otherwise a sentence. Only these channels are
/// copied to the host.
std::string what_is_wrong(const CheckCase& check, const BenchProblem& problem,
                          const BenchResults& results, const ScanStatistics& forward,
                          const ScanStatistics& backward, int64_t channels);

}  // namespace pararnn::bench
