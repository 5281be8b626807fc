#include "data/batches.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "data/permutation.hpp"

namespace pararnn::data {

BatchSampler::BatchSampler(std::shared_ptr<const TokenSource> source, int64_t rows, int64_t steps,
                           uint64_t seed)
    : source_(std::move(source)), rows_(rows), steps_(steps), seed_(seed) {
  require(rows > 0 && steps > 0, "a batch has at least one row and one step, not {} and {}", rows,
          steps);
  const int64_t tokens = source_->size();
  require(tokens > steps,
          "{} has {} tokens, too few for one window of {} steps and its targets; shorten the "
          "windows or give more text",
          source_->name(), tokens, steps);
  // One window less than would fit leaves room for offsets that bring every token into some epoch.
  windows_ = std::max<int64_t>(tokens / steps - 1, 1);
  offsets_ = tokens - windows_ * steps;
}

Batch BatchSampler::batch(int64_t step) const {
  Batch batch = {{}, {}, rows_, steps_};
  std::vector<int32_t> window(static_cast<size_t>(steps_ + 1));
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t place = step * rows_ + row;
    const uint64_t epoch_key = mix(mix(seed_) + static_cast<uint64_t>(place / windows_));
    const auto offset = static_cast<int64_t>(mix(epoch_key) % static_cast<uint64_t>(offsets_));
    source_->read(offset + permute(place % windows_, windows_, epoch_key) * steps_, window);
    batch.inputs.insert(batch.inputs.end(), window.begin(), window.end() - 1);
    batch.targets.insert(batch.targets.end(), window.begin() + 1, window.end());
  }
  return batch;
}

Batch PrefetchedBatches::batch(int64_t step) {
  Batch batch = next_.valid() && step == next_step_ ? next_.get() : sampler_.batch(step);
  next_step_ = step + stride_;
  next_ = std::async(std::launch::async,
                     [sampler = sampler_, next = next_step_] { return sampler.batch(next); });
  return batch;
}

}  // namespace pararnn::data
