// What sequences packed in one row cost beside the same steps as one sequence.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/options.hpp"

namespace pararnn::bench {

/// Times forward and forward-and-backward passes of one row ("cpu" or "cuda"), as one sequence and
/// as sequences of several mean lengths, for every cell and shape of one row; prints a line of the
/// table for each. Throws Error if a shape has more rows, or a result is wrong.
nlohmann::json measure_sequences(const BenchOptions& options, const std::string& device);

std::string sequences_table_header();
std::string sequences_table_row(const nlohmann::json& measurement);

}  // namespace pararnn::bench
