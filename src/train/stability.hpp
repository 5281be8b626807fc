// Whether a run is stable: how many of its steps were skipped, since their loss or gradient was not
// finite, and which losses stand out from those before them. It is part of a run's state, so that a
// resumed run judges its steps as if it had not stopped.
#pragma once

#include <cstdint>
#include <vector>

namespace pararnn::train {

/// A run of so many skipped steps ends the training: the weights are no longer good.
inline constexpr int64_t kMostSkippedInARow = 10;

/// A loss is compared with so many before it; with fewer than the least there is no telling.
inline constexpr int64_t kRecentLosses = 128, kFewestLosses = 32;

/// A loss so many standard deviations above the mean of those before it is a spike.
inline constexpr double kSpike = 6;

struct Stability {
  int64_t skipped = 0, skipped_in_a_row = 0;  // steps
  std::vector<double> recent;                 // losses of the last steps that were not skipped

  void add_skipped();
  /// The z-score of a step's loss among the recent ones, (loss − mean)/deviation, before the loss
  /// becomes one of them; 0 while they are too few. The deviation counts as at least a thousandth
  /// of the mean, so that the last digits of an even curve are no spike.
  double add(double loss);
};

}  // namespace pararnn::train
