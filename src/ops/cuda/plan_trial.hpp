// A call whose plan is learned: it runs what PlanChoice says for its place in the program, is timed
// by events on its stream, and tells what it took to a later call, which finds it done. Nothing
// waits for the device, and inside a CUDA graph nothing is timed.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/types.h>

#include <string>

#include "pararnn/cuda/problem.hpp"
#include "pararnn/plan.hpp"

namespace pararnn {

/// Calls that will probably take as long as each other: same shapes and cell, same weights.
struct Place {
  int device;
  bool backward;
  std::string cell;
  torch::ScalarType type;
  int64_t batch, steps, channels;
  const void* w;

  auto operator<=>(const Place&) const = default;
};

class PlanTrial {
 public:
  /// Chooses the plan, and begins to time it on `stream`, a stream of the current device. A request
  /// that is not for the way "auto" is the planner's alone, and so are all under
  /// torch.use_deterministic_algorithms, as plans differ in the last digits.
  PlanTrial(const Place& place, const PlanRequest& request, cudaStream_t stream);
  ~PlanTrial();
  PlanTrial(const PlanTrial&) = delete;
  PlanTrial& operator=(const PlanTrial&) = delete;

  const Plan& plan() const { return plan_; }

  /// After the last launch. `counters` are in device memory; null for a plan of one chunk.
  void finish(const cuda::Counters* counters);

  struct Entry;  // of a place

 private:
  Plan plan_;
  cudaStream_t stream_;
  Entry* timed_ = nullptr;
};

}  // namespace pararnn
