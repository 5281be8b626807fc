// What the operators between a model's products cost on a GPU, beside a copy of the bytes that they
// must move, or the products in them at the GPU's peak where that takes longer.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/options.hpp"

namespace pararnn::bench {

/// Times each operator of a block forward and backward at every shape, in `options.dtype`; prints a
/// line of the table for each.
nlohmann::json measure_operators(const BenchOptions& options);

std::string operators_table_header();
std::string operators_table_row(const nlohmann::json& measurement);

}  // namespace pararnn::bench
