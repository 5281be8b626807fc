// A sequence mixer: the part of a block that carries information along the sequence. It takes and
// returns (B,T,d); everything it needs from earlier steps is its state, so that a text can be read
// in pieces, or one token at a time, and gives what it gives in one. Mixers are made by name, so a
// block knows none of them.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/config.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn::nn {

/// What a mixer remembers of the steps so far: tensors with the batch as their first dimension,
/// whose meaning is the mixer's own. Empty: nothing was read yet.
using MixerState = std::vector<torch::Tensor>;

struct Mixer : torch::nn::Module {
  /// Mixes x (B,T,d), already normalised, going on from `state`. Where `reset` (B,T), bool, is
  /// given, a row begins with an empty state before each step that it marks. Returns y (B,T,d) in
  /// x's dtype and the state after step T.
  virtual std::pair<torch::Tensor, MixerState> forward(const torch::Tensor& x,
                                                       const MixerState& state,
                                                       const torch::Tensor& reset) = 0;

  /// Brings the weights back into the bounds that the config sets. Call after every update.
  virtual void clip_weights() {}

  /// How its scans are run from now on, where it has any.
  virtual void set_scan_options(const ScanOptions&) {}
};

/// The names a config may give.
std::vector<std::string> mixer_names();

/// The mixer that `config` names, freshly initialised.
std::shared_ptr<Mixer> make_mixer(const ModelConfig& config);

}  // namespace pararnn::nn
