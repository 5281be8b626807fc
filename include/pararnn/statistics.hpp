// What a scan did, on any device.
#pragma once

#include <cstdint>

#include "pararnn/plan.hpp"

namespace pararnn {

/// A column is one channel of one batch row. Corrections are counted in the same way on all
/// devices: the one of Newton's way, which moves every column before the first verification, and
/// each that follows a verification. So a linear recurrence takes one under the plan newton.
struct Statistics {
  Plan plan;
  double largest_mismatch = 0;         // left at the boundaries between chunks
  std::int64_t newton_iterations = 0;  // corrections
  std::int64_t columns = 0;
  std::int64_t columns_corrected = 0;  // failed the first verification
  std::int64_t columns_repaired = 0;   // still failed behind the last correction
};

}  // namespace pararnn
