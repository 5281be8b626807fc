// How fast language models generate, beside what reading their weights and states allows.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/options.hpp"
#include "nn/language_model.hpp"

namespace pararnn::bench {

/// What a step of decoding moves between the processor and its memory, in bytes.
struct StepBytes {
  double weights = 0;  // all but the rows of an embedding of its own that no token asks for
  double states = 0;   // of fixed size: read and written
  double cache = 0;    // of the tokens so far: read

  double sum() const { return weights + states + cache; }
};
/// For `batch` rows that have read so many tokens, numbers in the model's precision where they are
/// not in float32 in any.
StepBytes bytes_of_step(nn::LanguageModel& model, int64_t batch, double context);

/// Draws `steps` tokens for each of `batch` rows with a model on its device, after a context of so
/// many random tokens, which is read once and stands for all rows. On a GPU a step is a CUDA graph.
/// Tells tokens a second, milliseconds a step, and the share of that time in which memory moves
/// what bytes_of_step says at so many gigabytes a second; 0 where that is not known. Where memory
/// is too little, it tells how many gigabytes weights and states are.
nlohmann::json measure_generation(nn::LanguageModel& model, int64_t batch, int64_t context,
                                  int64_t steps, double gigabytes_per_second);

/// The same for models of 134M and 1.3B parameters with random weights, the first of them alone on
/// a CPU: every mixer and context of the options, and every cell where a mixer runs one, at batch 1
/// and 64; prints a line of the table for each.
nlohmann::json measure_generation(const BenchOptions& options, const std::string& device);

std::string generation_table_header();
std::string generation_table_row(const nlohmann::json& measurement);

}  // namespace pararnn::bench
