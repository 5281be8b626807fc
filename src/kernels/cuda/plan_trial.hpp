// A call whose plan is learned: it runs what PlanChoice says for its place in the program, is timed
// by events on its stream, and tells what it took to a later call, which finds it done. Nothing
// waits for the device, and inside a CUDA graph nothing is timed.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/headeronly/core/ScalarType.h>

#include <memory>

#include "cells/cell_definition.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/plan.hpp"

namespace pararnn {

/// Calls that will probably take as long as each other: same shapes and cell, same weights. Layers
/// of a model are alike but for what they remember, so they are told apart by where the caller
/// keeps their weights. A copy in the arithmetic's dtype would not do: it lies elsewhere at each
/// call, or where another layer's lay. Memory that is used anew for other weights of the same
/// shapes brings what was learned of the first: a guess, which the next times put right.
struct Place {
  int device;
  bool backward;
  const CellDefinition* cell;  // the registry's
  torch::headeronly::ScalarType type;
  int64_t batch, steps, channels;
  int64_t sequences;  // B, or as many as are packed in the only row
  const void* w;      // as the caller gave it

  auto operator<=>(const Place&) const = default;
};

/// Calls, of this process, that ran a plan while it was being found out which is fastest there. As
/// long as they become more, a program has not settled on the plans that a CUDA graph would keep.
int64_t calls_that_explored();

/// Tells that calls were made again by the replay of a CUDA graph, which is not seen here.
void count_replay();

/// make_plan, which looks at many plans, remembered: the same calls come again and again.
Plan remembered_plan(const PlanRequest& request);

class PlanTrial {
 public:
  /// Chooses the plan, and begins to time it on `stream`, a stream of the current device. A request
  /// that is not for the way "auto" is the planner's alone. What is learned of a place is forgotten
  /// once some hundreds of others were called since.
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
  std::shared_ptr<Entry> timed_;  // which may be forgotten meanwhile
};

}  // namespace pararnn
