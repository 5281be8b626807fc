// Measurements of the engine on a GPU: its passes at one shape and regime, and one step.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/gpu_timer.hpp"
#include "bench/options.hpp"

namespace pararnn::bench {

/// Forward pass as in inference and as in training, backward pass, and both through the operator
/// with autograd. In the regime `hard` also the sequential plan. The entry "wrong" is in place of
/// times if a result is wrong. `bandwidth` in gigabytes per second.
nlohmann::json measure_scan(const CheckCase& check, const std::string& regime,
                            const GpuTimer& timer, double bandwidth);

/// One step for decoding, beside a copy of as many bytes as it reads and writes.
nlohmann::json measure_step(const std::string& cell, int64_t batch, int64_t channels,
                            const std::string& dtype, const GpuTimer& timer);

}  // namespace pararnn::bench
