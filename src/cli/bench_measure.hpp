// One measurement of the engine: validated, then timed beside the loops.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/check_case.hpp"

namespace pararnn::cli {

/// Median of the run time in milliseconds, after a warm-up: over at least `fewest` runs, and more
/// for as long as `seconds` have not passed.
double median_milliseconds(const std::function<void()>& run, int fewest, double seconds);

/// Gigabytes per second, read and written together, of a copy between tensors too large for any
/// cache.
double copy_bandwidth();

/// The times of one cell, shape and regime. Baselines that depend on the shape alone are measured
/// once and kept in `torch_loops`.
nlohmann::json measure(const CheckCase& problem, const std::string& regime, double bandwidth,
                       std::map<std::string, double>& torch_loops, bool with_torch_loop);

/// The processor, its cores, instruction set and threads.
nlohmann::json describe_machine();

}  // namespace pararnn::cli
