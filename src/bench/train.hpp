// How fast a language model trains: steps of the trainer itself, on random tokens.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "nn/config.hpp"
#include "nn/recompute.hpp"
#include "train/config.hpp"

namespace pararnn::bench {

struct TrainBench {
  std::string name;          // of the model's sizes
  nn::ModelConfig model;     // its vocabulary too
  train::TrainConfig train;  // batch, length, precision, plan, …
  int64_t steps = 20;        // that are timed, after as many, or 20, that are not
};

/// What mixes in the layers of a model, in a few words: its pattern, with the cell in the place of
/// a mixer that runs one, as "gru*5,attention".
std::string mixer_label(const std::string& pattern, const std::string& cell);

/// What a measurement of training is of, as "134m gru B32 T2048".
std::string training_label(const nlohmann::json& measurement);
std::string training_label(const TrainBench& bench);

/// Tokens a second, milliseconds a step, the loss of the first and the last step, the peak of the
/// device's memory, the share of the GPU's arithmetic, and where the time of a step goes.
nlohmann::json measure_training(const TrainBench& bench, const torch::Device& device,
                                const nn::RecomputePlan& recompute = {});

/// Dense bfloat16 operations a second of a GPU, by its maker's data sheet; 0 for one not known.
double peak_operations(const std::string& gpu);

std::string training_table_header();
std::string training_table_row(const nlohmann::json& measurement);

}  // namespace pararnn::bench
