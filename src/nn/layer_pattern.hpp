// The mixers of a model's layers, as a pattern: names with commas between them, name*N for N layers
// one behind another. "rnn*3,attention" stands for four layers; a model of twelve has it three
// times.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pararnn::nn {

/// Layers of one mixer, one behind another.
struct LayerRun {
  std::string mixer;
  int64_t layers;

  bool operator==(const LayerRun&) const = default;
};

/// The runs of a pattern, in its order. Throws Error where it is none. Which mixers there are is
/// not looked at.
std::vector<LayerRun> parse_layer_pattern(const std::string& pattern);

/// The layers that the runs stand for.
int64_t length_of(const std::vector<LayerRun>& runs);

/// How many of the first `count` layers are of the mixer.
int64_t layers_among(const std::vector<LayerRun>& runs, std::string_view mixer, int64_t count);

/// The layer, from 0, that is the mixer's layer of that number, from 0. The pattern must name it.
int64_t layer_of(const std::vector<LayerRun>& runs, std::string_view mixer, int64_t number);

}  // namespace pararnn::nn
