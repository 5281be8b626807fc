// A trained model as a checkpoint holds it: config.json, model.safetensors and the tokenizer's
// files. They alone are enough to evaluate and to generate.
#pragma once

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
/// Error on damage, and on a cell that this user has not used before, unless it is to be trusted.
TrainedModel load_trained_model(const std::filesystem::path& path, bool trust_cell = false);

}  // namespace pararnn::train
