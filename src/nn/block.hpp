// One layer of a language model: x ← x + s₁ ⊙ mixer(RMSNorm(x)), then x ← x + s₂ ⊙ mlp(RMSNorm(x)).
// The norms stand before the branches (pre-norm), so x itself, the residual stream, is only ever
// added to; s₁ and s₂ are learnable residual scales, one a channel.
#pragma once

#include "nn/config.hpp"
#include "nn/mixer.hpp"
#include "nn/mlp.hpp"
#include "nn/recompute.hpp"
#include "nn/residual_stream.hpp"
#include "nn/rms_norm.hpp"

namespace pararnn::nn {

struct Block : torch::nn::Module {
  /// The layer of that number, from 0.
  explicit Block(const ModelConfig& config, int64_t layer = 0);

  /// The residual stream (B,T,d). Returns the stream after the block and the mixer's state.
  std::pair<ResidualStream, MixerState> forward(ResidualStream stream, const MixerState& state,
                                                const Documents& documents);
  void prepare(Documents& documents, const MixerState& state, int64_t batch, int64_t steps) const {
    mixer_->prepare(documents, state, batch, steps);
  }
  MixerState reserve(const MixerState& state, int64_t steps) const {
    return mixer_->reserve(state, steps);
  }
  void clip_weights() { mixer_->clip_weights(); }
  bool decays(std::string_view name, const torch::Tensor& parameter) const;
  void set_scan_options(const ScanOptions& options) { mixer_->set_scan_options(options); }
  /// What is computed again in the backward pass, from now on.
  void set_recompute(Recompute recompute) { recompute_ = recompute; }

 private:
  /// A part of the block: a stream and the mixer's state to a stream and the next state.
  using Result = std::pair<ResidualStream, MixerState>;
  using Part = Result (Block::*)(ResidualStream, const MixerState&, const Documents&);
  Result mix(ResidualStream stream, const MixerState& state, const Documents& documents);
  Result pass(ResidualStream stream, const MixerState& state, const Documents& documents);
  ResidualStream add_mlp(ResidualStream stream);
  Result recomputed(Part part, const std::vector<torch::Tensor>& parameters,
                    const torch::Tensor& scale, const ResidualStream& stream,
                    const MixerState& state, const Documents& documents);

  Recompute recompute_ = Recompute::kNothing;
  std::shared_ptr<RmsNorm> mixer_norm_, mlp_norm_;
  std::shared_ptr<Mixer> mixer_;
  std::shared_ptr<Mlp> mlp_;
  torch::Tensor mixer_scale_, mlp_scale_;  // (d)
};

}  // namespace pararnn::nn
