// How fast language models generate, beside what reading their weights allows.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/options.hpp"
#include "nn/language_model.hpp"

namespace pararnn::bench {

/// Bytes of the weights that a step of decoding reads, numbers of the products in `precision`: all
/// but the rows of an embedding of its own that no token asks for.
double weights_of_step(nn::LanguageModel& model, torch::ScalarType precision);

/// Generates `batch` texts of `tokens` tokens with a model on its device, from a prompt of 16
/// tokens: tokens and milliseconds, and the share of the time that reading the weights once a step
/// takes at so many gigabytes a second; 0 where that is not known.
nlohmann::json measure_generation(nn::LanguageModel& model, int64_t batch, int64_t tokens,
                                  double gigabytes_per_second);

/// The same for models of 134M and 1.3B parameters with random weights, the first of them alone on
/// a CPU, of every cell of the options, at batch 1 and 64; prints a line of the table for each.
nlohmann::json measure_generation(const BenchOptions& options, const std::string& device);

std::string generation_table_header();
std::string generation_table_row(const nlohmann::json& measurement);

}  // namespace pararnn::bench
