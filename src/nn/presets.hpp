// Sizes of models that have names: those of the published language models of nonlinear RNNs
// (ParaRNN, arXiv:2510.21450) and what lies between.
#pragma once

#include <string>
#include <vector>

#include "nn/config.hpp"

namespace pararnn::nn {

/// "134m", "400m", "1b", "3b", "7b".
std::vector<std::string> preset_names();

/// The sizes of a preset: width, layers, heads of the cell's projection, an MLP of 8d/3 rounded up
/// to a multiple of 256, an output matrix of its own, recurrent weights within 0.5. The rest has
/// its defaults. Throws Error with the names there are for another name.
ModelConfig preset(const std::string& name);

}  // namespace pararnn::nn
