#include "nn/model_files.hpp"

#include <fmt/ranges.h>

#include <fstream>
#include <sstream>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "cells/cell_registry.hpp"

namespace pararnn::nn {
namespace {

constexpr const char* kConfigFile = "config.json";
constexpr const char* kWeightsFile = "model.safetensors";
constexpr const char* kCellFile = "cell.hpp";  // older folders have none: the name says it all

}  // namespace

std::map<std::string, torch::Tensor> parameters_of(const LanguageModel& model) {
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& item : model->named_parameters()) tensors[item.key()] = item.value().detach();
  return tensors;
}

void load_parameters(LanguageModel& model, const std::map<std::string, torch::Tensor>& tensors,
                     const std::string& source) {
  const auto parameters = parameters_of(model);
  for (const auto& [name, tensor] : tensors) {
    require(parameters.contains(name), "'{}' holds the tensor '{}', which the model does not have",
            source, name);
  }
  for (const auto& [name, parameter] : parameters) {
    const auto found = tensors.find(name);
    require(found != tensors.end(), "'{}' lacks the tensor '{}' of the model", source, name);
    const torch::Tensor& tensor = found->second;
    require(tensor.sizes() == parameter.sizes(),
            "'{}': tensor '{}' is of shape ({}), the model's of ({})", source, name,
            fmt::join(tensor.sizes(), ","), fmt::join(parameter.sizes(), ","));
    require(tensor.is_floating_point(),
            "'{}': tensor '{}' must be of a floating-point dtype, not {}", source, name,
            torch::toString(tensor.scalar_type()));
  }
  torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : parameters) torch::Tensor(parameter).copy_(tensors.at(name));
}

void save_language_model(const std::filesystem::path& folder, const LanguageModel& model) {
  save_language_model(folder, model->config(), parameters_of(model));
}

void save_language_model(const std::filesystem::path& folder, const ModelConfig& config,
                         const std::map<std::string, torch::Tensor>& parameters) {
  // In its files a cell has its own name: the source beside it says which is meant.
  ModelConfig named = config;
  for_each_mixer(named, [&](std::string_view mixer, auto& options) {
    if (!has_mixer(config, mixer)) return;
    for_each_cell(options, [&](std::string& name) {
      const CellDefinition& cell = find_cell(name);
      write_file(folder / kCellFile, cell.text);
      name = cell.name;
    });
  });
  write_file(folder / kConfigFile, to_json(named).dump(2) + "\n");
  save_safetensors(folder / kWeightsFile, {.tensors = parameters, .metadata = {{"format", "pt"}}});
}

ModelConfig load_model_config(const std::filesystem::path& folder, bool trust_cell) {
  const std::string config_path = (folder / kConfigFile).string();
  std::ifstream file(config_path, std::ios::binary);
  require(file.is_open(), "there is no model in '{}': cannot read '{}'", folder.string(),
          config_path);
  const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  require(!json.is_discarded(), "'{}' is no valid JSON", config_path);
  const std::filesystem::path source = folder / kCellFile;
  return config_from_json(json, "'" + config_path + "'", [&](const std::string& name) {
    // A file would be compiled, whoever wrote it.
    require(name.find_first_of("/.") == name.npos,
            "'cell' in '{}' must be a name, not the file '{}'", config_path, name);
    return std::filesystem::exists(source)
               ? spelling_of(find_stored_cell(source.string(), name, trust_cell))
               : name;
  });
}

LanguageModel load_language_model(const std::filesystem::path& folder, bool trust_cell) {
  LanguageModel model(load_model_config(folder, trust_cell));
  const auto weights_path = folder / kWeightsFile;
  const Safetensors weights = load_safetensors(weights_path);
  try {
    load_parameters(model, weights.tensors, weights_path.string());
  } catch (const Error& error) {
    throw Error(fmt::format("{}; {} beside it tells of another model", error.what(), kConfigFile));
  }
  return model;
}

}  // namespace pararnn::nn
