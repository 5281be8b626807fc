// What a scan did, on any device.
#pragma once

#include <cstdint>

#include "pararnn/plan.hpp"

namespace pararnn {

/// A column is one channel of one batch row. Newton's way corrects every column before the first
/// verification, which is not counted.
struct Statistics {
  Plan plan;
  double largest_mismatch = 0;         // left at the boundaries between chunks
  std::int64_t newton_iterations = 0;  // corrections after the first verification
  std::int64_t columns = 0;
  std::int64_t columns_corrected = 0;  // failed the first verification
  std::int64_t columns_repaired = 0;   // still failed behind the last correction
};

}  // namespace pararnn
