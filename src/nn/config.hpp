// What defines a language model: its sizes and the choice of its parts. The weights mean nothing
// without it, so it is stored as config.json beside them. Everything about how a model is run
// (precision, plan, batch) is not part of it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace pararnn::nn {

/// The architecture of a language model.
struct ModelConfig {
  int64_t vocabulary = 257;    // tokens
  int64_t width = 256;         // channels d of the residual stream
  int64_t layers = 3;          // blocks, each a mixer and an MLP
  std::string mixer = "rnn";   // the sequence mixer of every block: see mixer_names()
  std::string cell = "gru";    // the cell of an rnn mixer: as find_cell takes it
  int64_t heads = 1;           // blocks of the cell's block-diagonal input projection; 1: dense
  int64_t conv_width = 4;      // taps of the causal depthwise convolution
  int64_t mlp_width = 0;       // hidden channels of the MLP; 0: 8d/3 rounded up to a multiple of 32
  bool tie_embedding = true;   // output logits through the transposed embedding
  double weight_bound = 0;     // bound on the size of the recurrent weights; 0: none
  double norm_epsilon = 1e-5;  // added to the mean square in every RMSNorm

  bool operator==(const ModelConfig&) const = default;

  /// mlp_width with its default worked out.
  int64_t hidden_width() const {
    return mlp_width > 0 ? mlp_width : (8 * width / 3 + 31) / 32 * 32;
  }
};

/// Throws Error with the first value that makes no model (sizes below 1, heads that do not divide
/// the width, unknown mixer or cell).
void validate(const ModelConfig& config);

nlohmann::json to_json(const ModelConfig& config);

/// The config written by to_json. Throws Error on an unknown or missing key, a value of a wrong
/// type, and whatever validate() refuses. `source` names the file in these errors.
ModelConfig config_from_json(const nlohmann::json& json, const std::string& source = "config");

}  // namespace pararnn::nn
