#include "nn/config.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "nn/mixer.hpp"

namespace pararnn::nn {
namespace {

/// Calls visit(key, member) for every member: the one list of what is stored.
template <class Config, class Visit>
void for_each_member(Config& config, Visit visit) {
  visit("vocabulary", config.vocabulary);
  visit("width", config.width);
  visit("layers", config.layers);
  visit("mixer", config.mixer);
  visit("cell", config.cell);
  visit("heads", config.heads);
  visit("conv_width", config.conv_width);
  visit("mlp_width", config.mlp_width);
  visit("tie_embedding", config.tie_embedding);
  visit("weight_bound", config.weight_bound);
  visit("norm_epsilon", config.norm_epsilon);
}

void read(const nlohmann::json& value, int64_t& member, const std::string& name) {
  require(value.is_number_integer(), "{} must be a whole number, not {}", name, value.dump());
  // A number above 2^63 would wrap around.
  require(!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX, "{} is too large: {}",
          name, value.dump());
  member = value.get<int64_t>();
}

void read(const nlohmann::json& value, double& member, const std::string& name) {
  require(value.is_number(), "{} must be a number, not {}", name, value.dump());
  member = value.get<double>();
}

void read(const nlohmann::json& value, bool& member, const std::string& name) {
  require(value.is_boolean(), "{} must be true or false, not {}", name, value.dump());
  member = value.get<bool>();
}

void read(const nlohmann::json& value, std::string& member, const std::string& name) {
  require(value.is_string(), "{} must be a string, not {}", name, value.dump());
  member = value.get<std::string>();
}

}  // namespace

void validate(const ModelConfig& config) {
  constexpr int64_t kLargest = int64_t{1} << 31;
  const auto size = [](const char* name, int64_t value, int64_t least) {
    require(value >= least && value < kLargest, "{} must be from {} to 2^31 - 1, not {}", name,
            least, value);
  };
  size("vocabulary", config.vocabulary, 1);
  size("width", config.width, 1);
  size("layers", config.layers, 0);
  size("heads", config.heads, 1);
  size("conv_width", config.conv_width, 1);
  size("mlp_width", config.mlp_width, 0);
  require(config.width % config.heads == 0, "heads must divide width: {} does not divide {}",
          config.heads, config.width);
  require(config.weight_bound >= 0 && std::isfinite(config.weight_bound),
          "weight_bound must be 0 (none) or a positive number, not {}", config.weight_bound);
  require(config.norm_epsilon > 0 && std::isfinite(config.norm_epsilon),
          "norm_epsilon must be a positive number, not {}", config.norm_epsilon);
  const auto mixers = mixer_names();
  require(std::find(mixers.begin(), mixers.end(), config.mixer) != mixers.end(),
          "unknown mixer '{}': there are {}", config.mixer, fmt::join(mixers, ", "));
  find_cell(config.cell);  // throws with the names there are
}

nlohmann::json to_json(const ModelConfig& config) {
  nlohmann::json json;
  for_each_member(config, [&](const char* key, const auto& member) { json[key] = member; });
  return json;
}

ModelConfig config_from_json(const nlohmann::json& json, const std::string& source) {
  require(json.is_object(), "{} must be a JSON object that describes a model", source);
  ModelConfig config;
  size_t known = 0;
  for_each_member(config, [&](const char* key, auto& member) {
    require(json.contains(key), "{} lacks the key '{}'", source, key);
    read(json[key], member, fmt::format("'{}' in {}", key, source));
    ++known;
  });
  if (json.size() != known) {
    const nlohmann::json expected = to_json(config);
    for (const auto& [key, value] : json.items()) {
      require(expected.contains(key), "{} has the unknown key '{}'", source, key);
    }
  }
  try {
    validate(config);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", source, error.what()));
  }
  return config;
}

}  // namespace pararnn::nn
