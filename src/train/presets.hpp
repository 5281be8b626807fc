// How models of the named sizes of nn/presets.hpp are trained at first.
#pragma once

#include <string>

#include "train/config.hpp"

namespace pararnn::train {

/// `config` as a preset trains, where that differs from the defaults: a z-loss of 1e-4, as
/// nonlinear RNNs were published with (ParaRNN, arXiv:2510.21450), and five times the learning rate
/// of the GPT-3 of about that size (Brown et al., arXiv:2005.14165, table 2.1), which is 3e-3 for
/// 134m. They are where to start, not tuned. AdamW's 0.9 and 0.95 and the cosine are defaults.
/// Throws Error for a name that is none of nn::preset_names.
TrainConfig with_preset(TrainConfig config, const std::string& preset);

}  // namespace pararnn::train
