// The language model: embedding → blocks → RMSNorm → logits. It reads a whole text at once, for
// training, or piece by piece with a state, for decoding; both give the same logits.
//
// Precision. Activations have the dtype of the matrices: fp32, fp64 after `to(torch::kDouble)`, or
// what to_precision() makes of them. bf16 halves the bytes of weights and activations, and its
// products are several times faster on processors that multiply it in hardware. Norms, biases,
// residual scales and recurrent weights, which are small, stay in fp32, and so do the states of the
// scans and all sums.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "nn/block.hpp"
#include "nn/config.hpp"
#include "ops/cross_entropy/cross_entropy.hpp"

namespace pararnn::nn {

/// What a model remembers of the text so far. Default: nothing was read yet.
struct LanguageModelState {
  std::vector<MixerState> layers;
};

struct LanguageModelImpl : torch::nn::Module {
  /// Random initial weights, drawn on the device from its default generator: the same seed gives
  /// others on a GPU than on a CPU. Throws Error on an invalid config.
  explicit LanguageModelImpl(const ModelConfig& config, const torch::Device& device = torch::kCPU);

  const ModelConfig& config() const { return config_; }

  /// tokens (B,T), int32 or int64, on the parameters' device -> logits (B,T,V) in the embedding's
  /// dtype. Throws Error on tokens outside the vocabulary; on a GPU, where to look would be to
  /// wait, they fail an assertion of the device.
  torch::Tensor forward(const torch::Tensor& tokens);

  /// The same, going on from `state`; returns also the state after step T. Where `reset` (B,T),
  /// bool, is given, a row begins anew before each step that it marks, as if nothing had been read.
  std::pair<torch::Tensor, LanguageModelState> forward(const torch::Tensor& tokens,
                                                       const LanguageModelState& state,
                                                       const torch::Tensor& reset = {});

  /// How well the model predicts `targets` (B,T), int64, each after the token at its place and
  /// those before: as linear_cross_entropy, which holds the logits of some tokens at a time. Also
  /// the state after step T. The rest as above.
  std::pair<ops::CrossEntropy, LanguageModelState> loss(
      const torch::Tensor& tokens, const torch::Tensor& targets,
      const ops::CrossEntropyOptions& options = {}, const LanguageModelState& state = {},
      const torch::Tensor& reset = {});

  /// The same of texts that are all there is: nothing was read before, and no state is kept for
  /// what comes after.
  ops::CrossEntropy loss_of_whole(const torch::Tensor& tokens, const torch::Tensor& targets,
                                  const ops::CrossEntropyOptions& options = {},
                                  const torch::Tensor& reset = {});

  /// The state with room for so many steps of decoding, as Mixer::reserve says.
  LanguageModelState reserve(const LanguageModelState& state, int64_t steps) const;

  /// One step of decoding: tokens (B) -> logits (B,V), advancing `state`. No gradient. Where
  /// the mixers' states are of fixed size, its cost does not grow with the text.
  torch::Tensor step(const torch::Tensor& tokens, LanguageModelState& state);

  /// Brings the recurrent weights back into the bounds that the config sets. Call after every
  /// update.
  void clip_weights();

  /// Whether weight decay applies to a parameter: to the matrices of projections, convolutions and
  /// embedding, but not to norms, biases, residual scales and recurrent weights.
  bool decays(std::string_view name, const torch::Tensor& parameter) const;

  /// Rounds the matrices, which are the parameters that decay, to `dtype`, and computes in it from
  /// now on. Memory of theirs that is held elsewhere (by a detached alias) stays as it was. Not
  /// part of the config: a model trained in one precision may be run in another.
  void to_precision(torch::ScalarType dtype);
  /// The dtype of the matrices, in which it computes.
  torch::ScalarType precision() const { return embedding_.scalar_type(); }

  /// How the scans along the sequence are run from now on. Not part of the config either.
  void set_scan_options(const ScanOptions& options);

  /// What the backward pass computes again, from now on; at first nothing. Nor is this. Results
  /// are the same, on a CPU bit for bit.
  void set_recompute(const RecomputePlan& plan);
  const RecomputePlan& recompute() const { return recompute_; }

 private:
  /// What logits are made of, (B,T,d) in precision(). Puts the state after step T into `next`,
  /// where it is wanted.
  torch::Tensor hidden_states(const torch::Tensor& tokens, const LanguageModelState& state,
                              const torch::Tensor& reset, LanguageModelState* next);

  ModelConfig config_;
  RecomputePlan recompute_;
  torch::Tensor embedding_;  // (V,d)
  torch::Tensor output_;     // (V,d): the embedding itself where tied
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<RmsNorm> norm_;
};
TORCH_MODULE(LanguageModel);

}  // namespace pararnn::nn
