// Sizes of models that have names: those of the published language models of nonlinear RNNs
// (ParaRNN, arXiv:2510.21450) and what lies between.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/config.hpp"

namespace pararnn::nn {

/// "134m", "400m", "1b", "3b", "7b".
std::vector<std::string> preset_names();

/// The sizes of a preset with layers of such a mixer, or pattern of mixers: width, layers, heads of
/// the cell's projection, preset_mlp_width, an output matrix of its own, recurrent weights within
/// 0.5. The rest has its defaults. Throws Error with the names there are for another name.
ModelConfig preset(const std::string& name, const std::string& mixer = ModelConfig().mixer);

/// The hidden channels of a preset's MLP in a valid config, rounded up to a multiple of 256: 8d/3,
/// which are 8d² parameters beside the 4d² of attention. What mixers of more than 5d² (those of the
/// published 3b have 4.5d²) have above 4d² is taken from it: so a block of them has 12d² too.
int64_t preset_mlp_width(const ModelConfig& config);

}  // namespace pararnn::nn
