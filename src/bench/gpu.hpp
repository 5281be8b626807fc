// `pararnn bench` on a GPU: which measurements, in which order.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "bench/options.hpp"

namespace pararnn::bench {

/// scan: the cells, shapes and regimes; module: the operator with autograd in float32; decode: one
/// step; length: one shape at many lengths, for the plot.
inline const std::vector<std::string> kGpuParts = {"scan", "module", "decode", "length"};

/// Measures the parts, printing lines of their tables. A result that is wrong is not timed. Throws
/// Error if there is no GPU.
nlohmann::json bench_on_gpu(const BenchOptions& options);

/// The GPU's name, multiprocessors and memory.
nlohmann::json describe_gpu();

/// The sentences of results that were wrong.
std::vector<std::string> wrong_results(const nlohmann::json& report);

}  // namespace pararnn::bench
