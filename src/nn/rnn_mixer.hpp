// The mixer of the published nonlinear RNN language models (ParaRNN, arXiv:2510.21450):
//
//   x ─ input projection d→2d ─┬─ branch ─ causal convolution ─ projection to u ─ cell ─ RMSNorm ─
//   · ─ output projection
//                              └─ gate ───────────────────────────────────────────────── silu ───┘
//
// The RMSNorm before the mixer is the block's. The projection to the cell's pre-activations u is
// block-diagonal over heads; its biases are the cell's.
//
// State: the last conv_width - 1 inputs of the convolution, (B, conv_width - 1, d), and the cell's
// state, (B,S,d).
#pragma once

#include "nn/causal_convolution.hpp"
#include "nn/head_projection.hpp"
#include "nn/linear.hpp"
#include "nn/mixer.hpp"
#include "nn/rms_norm.hpp"

namespace pararnn::nn {

struct RnnMixer : Mixer {
  explicit RnnMixer(const ModelConfig& config);
  std::pair<torch::Tensor, MixerState> forward(const torch::Tensor& x,
                                               const MixerState& state) override;
  void clip_weights() override;

 private:
  std::string cell_;
  double weight_bound_;
  std::shared_ptr<Linear> input_;
  std::shared_ptr<CausalConvolution> convolution_;
  std::shared_ptr<HeadProjection> projection_;
  torch::Tensor recurrent_weight_;  // w (P,d)
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<Linear> output_;
};

}  // namespace pararnn::nn
