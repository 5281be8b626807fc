#include "nn/config.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.hpp"

namespace pararnn::nn {
namespace {

/// A config of the older form, with the options of its mixer, rnn, where they stand now.
nlohmann::json with_mixers(nlohmann::json json) {
  if (json.contains("mixers")) return json;
  nlohmann::json rnn = nlohmann::json::object();
  for (const char* key : {"cell", "heads", "conv_width", "weight_bound"}) {
    if (!json.contains(key)) continue;
    rnn[key] = json[key];
    json.erase(key);
  }
  if (!rnn.empty()) json["mixers"]["rnn"] = rnn;
  return json;
}

}  // namespace

std::vector<std::string> mixer_names() {
  std::vector<std::string> names;
  const ModelConfig config;
  for_each_mixer(config, [&](const char* name, const auto&) { names.emplace_back(name); });
  return names;
}

void require_mixers(const std::string& pattern) {
  const std::vector<std::string> names = mixer_names();
  for (const LayerRun& run : parse_layer_pattern(pattern)) {
    require(std::ranges::find(names, run.mixer) != names.end(), "unknown mixer '{}': there are {}",
            run.mixer, fmt::join(names, ", "));
  }
}

std::vector<LayerRun> mixers_of(const ModelConfig& config) {
  const std::vector<LayerRun> runs = parse_layer_pattern(config.mixer);
  const int64_t repeats = config.layers / length_of(runs);
  std::vector<LayerRun> mixers;
  for (const LayerRun& run : runs) {
    auto known = std::ranges::find(mixers, run.mixer, &LayerRun::mixer);
    if (known == mixers.end()) known = mixers.insert(known, {run.mixer, 0});
    known->layers += repeats * run.layers;
  }
  return mixers;
}

bool has_mixer(const ModelConfig& config, std::string_view mixer) {
  const std::vector<LayerRun> runs = parse_layer_pattern(config.mixer);
  return std::ranges::find(runs, mixer, &LayerRun::mixer) != runs.end();
}

std::string mixer_of_layer(const ModelConfig& config, int64_t layer) {
  const std::vector<LayerRun> runs = parse_layer_pattern(config.mixer);
  layer %= length_of(runs);
  auto run = runs.begin();
  while (layer >= run->layers) layer -= (run++)->layers;
  return run->mixer;
}

std::string OptionNames::name_of_value(const void* value) const {
  std::string name;
  const auto look_at = [&](const std::string& owner, const auto& options) {
    for_each_option(options, [&](std::string_view key, const auto& other, const Option& option) {
      if (value != &other) return;
      name = by == CalledBy::kFlag && !option.flag.empty() ? option.flag : owner + std::string(key);
    });
  };
  look_at("", config);
  for_each_mixer(config, [&](const std::string& mixer, const auto& options) {
    look_at(mixer + ".", options);
  });
  require(!name.empty(), "a sentence is about a value that is no option of the config");
  return name;
}

void validate(const ModelConfig& config, CalledBy by) {
  const OptionNames name{config, by};
  check_options(config, name);
  require_mixers(config.mixer);
  const int64_t length = length_of(parse_layer_pattern(config.mixer));
  require(config.layers % length == 0,
          "{} must be a multiple of {}, as many as {} {} stands for, not {}", name(config.layers),
          length, name(config.mixer), config.mixer, config.layers);
  for_each_mixer(config, [&](std::string_view mixer, const auto& options) {
    if (!has_mixer(config, mixer)) return;
    check_options(options, name);
    validate(options, config, name);
  });
}

std::string describe_layers(const ModelConfig& config) {
  std::string text;
  for (const LayerRun& run : mixers_of(config)) {
    for_each_mixer(config, [&](std::string_view mixer, const auto& options) {
      if (run.mixer != mixer) return;
      text += fmt::format("{}{} layer{} of {}", text.empty() ? "" : ", ", run.layers,
                          run.layers == 1 ? "" : "s", describe(options, config));
    });
  }
  return text;
}

nlohmann::json to_json(const ModelConfig& config) {
  nlohmann::json json = options_to_json(config);
  for_each_mixer(config, [&](const char* mixer, const auto& options) {
    if (has_mixer(config, mixer)) json["mixers"][mixer] = options_to_json(options);
  });
  return json;
}

ModelConfig config_from_json(
    const nlohmann::json& json, const std::string& source,
    const std::function<std::string(const std::string&)>& spelling_of_cell) {
  require(json.is_object(), "{} must be a JSON object that describes a model", source);
  const auto about_source = [&](const auto& action) {
    try {
      action();
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", source, error.what()));
    }
  };
  nlohmann::json own = with_mixers(json);
  nlohmann::json mixers = own.value("mixers", nlohmann::json::object());
  own.erase("mixers");
  ModelConfig config;
  read_options(own, config, source);
  about_source([&] { require_mixers(config.mixer); });
  const std::string place = fmt::format("'mixers' in {}", source);
  require(mixers.is_object(), "{} must be a JSON object, not {}", place, mixers.dump());
  for_each_mixer(config, [&](const char* mixer, auto& options) {
    if (!has_mixer(config, mixer)) return;
    if (mixers.contains(mixer)) {
      read_options(mixers[mixer], options, fmt::format("'{}' of {}", mixer, place));
      mixers.erase(mixer);
    }
    if (!spelling_of_cell) return;
    for_each_cell(options, [&](std::string& cell) { cell = spelling_of_cell(cell); });
  });
  require(mixers.empty(), "{} has the unknown key '{}'", place,
          mixers.empty() ? "" : mixers.begin().key());
  about_source([&] { validate(config); });
  return config;
}

}  // namespace pararnn::nn
