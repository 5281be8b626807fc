// The processes that train one model together, each on its share of every batch. They hold the same
// weights and go through the same steps; this is all that they tell each other.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <span>

namespace pararnn::train {

/// A process by itself, which is a world of one. In a larger one each rank makes the same calls in
/// the same order, and waits in each until all have made it.
class World {
 public:
  virtual ~World() = default;

  virtual int64_t rank() const { return 0; }
  virtual int64_t size() const { return 1; }

  /// Whether this rank tells of the run: its log, its checkpoints, the terminal.
  bool is_writer() const { return rank() == 0; }

  /// Each tensor becomes its mean over the ranks, in place and in its own dtype, which on a GPU is
  /// queued.
  virtual void average(std::span<const torch::Tensor> /*tensors*/) {}

  /// The largest of the ranks' numbers.
  virtual int64_t largest(int64_t number) { return number; }
  /// Whether a flag is set on any rank.
  bool any(bool flag) { return largest(flag) != 0; }

  /// The number of rank 0.
  virtual double of_first(double number) { return number; }
};

}  // namespace pararnn::train
