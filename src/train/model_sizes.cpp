#include "train/model_sizes.hpp"

#include "nn/mixer.hpp"

namespace pararnn::train {

std::vector<ParameterPart> parameters_by_part(const nn::ModelConfig& config) {
  const double d = double(config.width), m = double(config.hidden_width());
  const double layers = double(config.layers), matrix = double(config.vocabulary) * d;
  std::vector<ParameterPart> parts{{"embedding", matrix}};
  for (const auto& [mixer, sizes, count] : nn::sizes_of_mixers(config)) {
    const nn::Numbers& of_layer = sizes.parameters;
    parts.push_back({mixer, count * (of_layer.in_precision + of_layer.in_float32)});
  }
  parts.push_back({"MLPs", layers * 3 * d * m});
  parts.push_back({"norms and scales", layers * 4 * d + d});  // two of each in a block
  if (!config.tie_embedding) parts.push_back({"output", matrix});
  return parts;
}

double parameter_count(const nn::ModelConfig& config) {
  double count = 0;
  for (const ParameterPart& part : parameters_by_part(config)) count += part.count;
  return count;
}

double operations_per_token(const nn::ModelConfig& config, int64_t length) {
  double operations = 6 * parameter_count(config);
  const double looked_at = double(length + 1) / 2;  // tokens, itself too, on average
  for (const auto& [mixer, sizes, layers] : nn::sizes_of_mixers(config, {.steps = length})) {
    operations += 3 * layers * (sizes.operations + looked_at * sizes.operations_of_pair);
  }
  return operations;
}

}  // namespace pararnn::train
