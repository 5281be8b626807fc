// How to run a scan, and what one did: what the kernels and those above them share.
#pragma once

#include <cstdint>
#include <string>

namespace pararnn {

/// How to run a scan: the time it takes, and its results within the tolerance. With the defaults
/// the planner decides, and on a GPU what earlier calls took; "planner" is the planner alone, so
/// that equal calls have equal plans.
struct ScanOptions {
  std::string plan = "auto";  // auto | planner | sequential | speculative | newton
  int64_t chunk = 0;          // steps a chunk; 0: the planner's choice
  int64_t burn_in = -1;       // steps a chunk starts early; -1: the planner's choice
  double tolerance = 0;       // mismatch allowed at a chunk boundary, absolute and relative to the
                              // state, up to 0.1; 0: 1e-6 for fp32 arithmetic, 1e-12 for fp64
};

/// What one pass did. A column is one channel of one batch row.
struct ScanStatistics {
  std::string plan;  // sequential | speculative | newton
  int64_t chunk = 0, chunks = 0, burn_in = 0;
  double largest_mismatch = 0;    // left at the chunk boundaries, in the measure of the tolerance
  int64_t newton_iterations = 0;  // corrections, the one of the plan newton included
  int64_t columns = 0, columns_corrected = 0, columns_repaired = 0;
};

}  // namespace pararnn
