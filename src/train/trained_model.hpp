// A trained model as a checkpoint holds it: config.json, model.safetensors and the tokenizer's
// files. They alone are enough to evaluate and to generate.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <memory>

#include "data/tokenizer.hpp"
#include "nn/language_model.hpp"

namespace pararnn::train {

struct TrainedModel {
  nn::LanguageModel model;
  std::shared_ptr<const data::Tokenizer> tokenizer;
};

/// Reads the newest checkpoint of a run, a checkpoint, or a folder with these files alone. Throws
/// Error on damage, on a cell that this user has not used before, unless it is to be trusted, and
/// where there is no memory for the model.
TrainedModel load_trained_model(const std::filesystem::path& path, bool trust_cell = false,
                                const torch::Device& device = torch::kCPU);

}  // namespace pararnn::train
