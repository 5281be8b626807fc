// A sequence mixer: the part of a block that carries information along the sequence. It takes and
// returns (B,T,d); everything it needs from earlier steps is its state, so that a text can be read
// in pieces, or one token at a time, and gives what it gives in one.
//
// A mixer is a pair of files in nn/mixers/, with a struct of its options and, for these,
//
//   for_each_option(options, visit)    the list of them, as nn/option.hpp says
//   validate(options, config, name)    throws Error where they do not go together; name(value) is
//                                      what a sentence calls an option
//   describe(options, config)          what is said of its layers: "12 layers of ..."
//   sizes_of(options, config, pass)    what a layer takes, as MixerSizes
//   make_mixer(options, config)        a layer, freshly initialised
//
// The list of all mixers is in nn/config.hpp; nothing else knows one of them by name.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nn/documents.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn::nn {

struct ModelConfig;
struct OptionNames;

/// What a mixer remembers of the steps so far: tensors with the batch as their first dimension,
/// whose meaning is the mixer's own. Empty: nothing was read yet.
using MixerState = std::vector<torch::Tensor>;

struct Mixer : torch::nn::Module {
  /// Mixes x (B,T,d), already normalised, going on from `state`. A row begins with an empty state
  /// where a document does. Returns y (B,T,d) in x's dtype and the state after step T.
  virtual std::pair<torch::Tensor, MixerState> forward(const torch::Tensor& x,
                                                       const MixerState& state,
                                                       const Documents& documents) = 0;

  /// Adds to the documents of B rows of T steps what layers of this mixer can share, where it is
  /// not there yet: before any layer goes on from its state, of which `state` is this layer's.
  virtual void prepare(Documents& /*documents*/, const MixerState& /*state*/, int64_t /*batch*/,
                       int64_t /*steps*/) const {}

  /// The state with room for so many steps more, for decoding: forward() on one step without a
  /// gradient then writes to it in place, so that it can be captured in a CUDA graph. A state whose
  /// size does not grow with the text is itself.
  virtual MixerState reserve(const MixerState& state, int64_t /*steps*/) const { return state; }

  /// Brings the weights back into the bounds that the config sets. Call after every update.
  virtual void clip_weights() {}

  /// Whether weight decay applies to a parameter of this mixer, which also says that it is rounded
  /// to the precision that the model computes in.
  virtual bool decays(std::string_view, const torch::Tensor& parameter) const {
    return parameter.dim() >= 2;
  }

  /// How its scans are run from now on, where it has any.
  virtual void set_scan_options(const ScanOptions&) {}
};

/// A count of numbers, of which some are in float32 in any precision.
struct Numbers {
  double in_precision = 0, in_float32 = 0;
};

/// How a batch goes through a layer, as far as what that takes depends on it.
struct Pass {
  torch::TensorOptions activations{};  // their dtype and device
  int64_t steps = 1;                   // of a row at once
  bool documents = false;              // are kept apart
};

/// What a layer of a mixer takes in such a pass, reckoned from its options.
struct MixerSizes {
  double tensors = 0;         // its parameters
  Numbers parameters{};       // in them: those that decay, and the others
  Numbers kept{};             // of each token, for the backward pass, its normalised input too
  Numbers backward{};         // of each token, more than that at the peak of the backward pass
  Numbers held{};             // of each token at once, where no backward pass follows, beside it
  Numbers held_of_earlier{};  // of each token of earlier pieces, meanwhile
  Numbers state{};            // of each row, when nothing was read yet
  Numbers state_of_token{};   // of each row, more for each token read: a cache
  // One for all layers, where documents are apart or keys of earlier pieces are looked at:
  double mask_of_pair = 0;        // of each token with each key
  double mask_of_token = 0;       // of each token
  double operations = 0;          // of each token, forward, beside two for each parameter
  double operations_of_pair = 0;  // of each token with each that it may look at, itself too
};

/// The mixer of a layer, from 0, freshly initialised.
std::shared_ptr<Mixer> make_mixer(const ModelConfig& config, int64_t layer);

/// The mixers of a model's layers, in the order of mixers_of().
struct MixerLayers {
  std::string mixer;
  MixerSizes sizes;  // of a layer
  double layers;     // how many
};
std::vector<MixerLayers> sizes_of_mixers(const ModelConfig& config, const Pass& pass = {});

}  // namespace pararnn::nn
