// What defines a language model: its sizes and the choice of its parts. The weights mean nothing
// without it, so it is stored as config.json beside them. Everything about how a model is run
// (precision, plan, batch) is not part of it.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "nn/layer_pattern.hpp"
#include "nn/mixers/attention_mixer.hpp"
#include "nn/mixers/mamba2_mixer.hpp"
#include "nn/mixers/rnn_mixer.hpp"
#include "nn/option.hpp"

namespace pararnn::nn {

/// The architecture of a language model. The options of each mixer are a member named as it is.
struct ModelConfig {
  int64_t vocabulary = 257;    // tokens
  int64_t width = 256;         // channels d of the residual stream
  int64_t layers = 3;          // blocks, each a mixer and an MLP
  std::string mixer = "rnn";   // of all layers, or a pattern: see layer_pattern.hpp
  int64_t mlp_width = 0;       // hidden channels of the MLP; 0: 8d/3 rounded up to a multiple of 32
  bool tie_embedding = true;   // output logits through the transposed embedding
  double norm_epsilon = 1e-5;  // added to the mean square in every RMSNorm
  RnnOptions rnn{};
  AttentionOptions attention{};
  Mamba2Options mamba2{};

  bool operator==(const ModelConfig&) const = default;

  /// mlp_width with its default worked out.
  int64_t hidden_width() const {
    return mlp_width > 0 ? mlp_width : (8 * width / 3 + 31) / 32 * 32;
  }
};

/// The mixers that there are, each with its options: calls visit(name, options). A new mixer is a
/// line here and a member above.
template <MaybeConst<ModelConfig> Config, class Visit>
void for_each_mixer(Config& config, Visit&& visit) {
  visit("rnn", config.rnn);
  visit("attention", config.attention);
  visit("mamba2", config.mamba2);
}

/// The options of a model, without those of its mixers.
template <MaybeConst<ModelConfig> Config, class Visit>
void for_each_option(Config& config, Visit&& visit) {
  visit("vocabulary", config.vocabulary, Option{.least = 1});
  visit("width", config.width, Option{"--width", "channels of the residual stream", 1});
  visit("layers", config.layers, Option{"--layers", "blocks, each a sequence mixer and an MLP"});
  visit("mixer", config.mixer,
        Option{"--mixer",
               "what carries information along the sequence: one for all layers, or a pattern, as "
               "rnn*3,attention, which is repeated until there are enough"});
  visit("mlp_width", config.mlp_width,
        Option{"--mlp-width",
               "hidden channels of the MLP; 0: 8/3 of --width, rounded up to a multiple of 32"});
  visit("tie_embedding", config.tie_embedding,
        Option{"--tie-embedding",
               "true: the embedding also makes the logits; false: a matrix of their own does"});
  visit("norm_epsilon", config.norm_epsilon,
        Option{.least = std::numeric_limits<double>::denorm_min()});
}

/// The names that a pattern may have.
std::vector<std::string> mixer_names();

/// Throws Error unless it is a pattern of them.
void require_mixers(const std::string& pattern);

/// The mixers that a model has, and how many layers of each; in the order in which they come.
std::vector<LayerRun> mixers_of(const ModelConfig& config);

/// Whether the model's pattern names the mixer.
bool has_mixer(const ModelConfig& config, std::string_view mixer);

/// The mixer of a layer, from 0.
std::string mixer_of_layer(const ModelConfig& config, int64_t layer);

/// The model's own options and those of the mixers that it has.
template <MaybeConst<ModelConfig> Config, class Visit>
void for_each_used_option(Config& config, Visit&& visit) {
  for_each_option(config, visit);
  for_each_mixer(config, [&](std::string_view mixer, auto& options) {
    if (has_mixer(config, mixer)) for_each_option(options, visit);
  });
}

/// How an option is called in a sentence.
inline std::string name_of(std::string_view key, const Option& option) {
  return std::string(option.flag.empty() ? key : option.flag);
}

/// What an error calls an option: the field of ModelConfig, "attention.heads", or what the program
/// has for it, "--attention-heads".
enum class CalledBy { kField, kFlag };

/// The names of a config's options, for sentences about them.
struct OptionNames {
  const ModelConfig& config;
  CalledBy by = CalledBy::kField;

  /// The name of the option whose value this is, a member of `config` or of the options of one of
  /// its mixers.
  template <class Value>
  std::string operator()(const Value& value) const {
    return name_of_value(&value);
  }

 private:
  std::string name_of_value(const void* value) const;
};

/// Throws Error with the first value that makes no model (sizes below 1, a pattern that does not
/// divide the layers, an unknown mixer or cell, what a mixer says of its own options).
void validate(const ModelConfig& config, CalledBy by = CalledBy::kField);

/// The layers in words, as "12 layers of gru".
std::string describe_layers(const ModelConfig& config);

nlohmann::json to_json(const ModelConfig& config);

/// The config written by to_json; what is missing has its default. Before mixers had options of
/// their own, those of the rnn mixer stood beside the others: such a config is read too. Throws
/// Error on an unknown key, a value of a wrong type, and whatever validate() refuses. `source`
/// names the file in these errors. `spelling_of_cell`, where given, takes the name of a cell and
/// says what find_cell knows it by.
ModelConfig config_from_json(
    const nlohmann::json& json, const std::string& source = "config",
    const std::function<std::string(const std::string&)>& spelling_of_cell = {});

}  // namespace pararnn::nn
