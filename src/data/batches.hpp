// Training batches: windows of the token row, each row of a batch one window, targets one token
// later. Windows lie side by side without overlap; an epoch takes each of them once, in a
// pseudo-random order, and the next epoch shifts them all by another offset. A batch is a pure
// function of (seed, step), so that a run resumes with nothing to restore.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "data/token_source.hpp"

namespace pararnn::data {

/// Row-major (rows, steps).
struct Batch {
  std::vector<int32_t> inputs, targets;
  int64_t rows, steps;
};

class BatchSampler {
 public:
  /// Error if the source is too short for one window of `steps` tokens and their successors.
  BatchSampler(std::shared_ptr<const TokenSource> source, int64_t rows, int64_t steps,
               uint64_t seed);

  Batch batch(int64_t step) const;

  /// Windows in an epoch.
  int64_t windows() const { return windows_; }

 private:
  std::shared_ptr<const TokenSource> source_;
  int64_t rows_, steps_;
  uint64_t seed_;
  int64_t windows_;
  int64_t offsets_;  // that an epoch may shift its windows by: 0..offsets-1
};

/// Batches that are asked for one after the other, or each `stride`-th of them: a thread prepares
/// the next meanwhile.
class PrefetchedBatches {
 public:
  explicit PrefetchedBatches(BatchSampler sampler, int64_t stride = 1)
      : sampler_(std::move(sampler)), stride_(stride) {}

  /// The sampler's batch of a step.
  Batch batch(int64_t step);

 private:
  BatchSampler sampler_;
  int64_t stride_;
  int64_t next_step_ = -1;
  std::future<Batch> next_;
};

}  // namespace pararnn::data
