// `pararnn bench` on the processor: the engine beside the step-by-step loops.
#pragma once

#include <nlohmann/json.hpp>

#include "bench/options.hpp"

namespace pararnn::bench {

/// Measures every cell, shape and regime, printing a line of the table for each. Throws Error if a
/// result is wrong.
nlohmann::json bench_on_cpu(const BenchOptions& options);

/// The processor, its cores, instruction set and threads.
nlohmann::json describe_processor();

}  // namespace pararnn::bench
