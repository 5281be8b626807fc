// Time that work takes on the host.
#pragma once

#include <chrono>
#include <functional>

namespace pararnn::bench {

double seconds_since(std::chrono::steady_clock::time_point start);

/// Median of the run time in milliseconds, after a warm-up: over at least `fewest` runs, and more
/// for as long as `seconds` have not passed.
double median_milliseconds(const std::function<void()>& run, int fewest, double seconds);

}  // namespace pararnn::bench
