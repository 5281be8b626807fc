// A language model in a folder: config.json, model.safetensors, and cell.hpp, the source of its
// cell, so that the folder alone is enough to run the model.
#pragma once

#include <filesystem>

#include "nn/language_model.hpp"
#include "nn/safetensors.hpp"

namespace pararnn::nn {

/// The parameters of a model by name.
std::map<std::string, torch::Tensor> parameters_of(const LanguageModel& model);

/// Copies tensors into the model's parameters. Throws Error on a missing tensor, one too many, a
/// wrong shape or dtype, and then changes nothing. `source` names the file in these errors.
void load_parameters(LanguageModel& model, const std::map<std::string, torch::Tensor>& tensors,
                     const std::string& source);

/// Writes the model into `folder`, which must exist. Throws Error where it cannot.
void save_language_model(const std::filesystem::path& folder, const LanguageModel& model);
/// The same with other values of the parameters: those in full precision that a model rounds.
void save_language_model(const std::filesystem::path& folder, const ModelConfig& config,
                         const std::map<std::string, torch::Tensor>& parameters);

/// The config of the model in `folder`, with its cell registered. Throws Error on anything missing
/// or damaged, and on a cell that this user has not used before, unless it is to be trusted.
ModelConfig load_model_config(const std::filesystem::path& folder, bool trust_cell = false);

/// The model in `folder`. Throws as load_model_config.
LanguageModel load_language_model(const std::filesystem::path& folder, bool trust_cell = false);

}  // namespace pararnn::nn
