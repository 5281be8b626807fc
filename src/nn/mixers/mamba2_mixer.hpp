// The mixer of Mamba2 (Dao and Gu, "Transformers are SSMs", arXiv:2405.21060), with E = expand d
// channels in H heads, and G groups of N state components:
//
//   x ─ input projection ─┬─ x (E), b, c (G N) ─ causal convolution, silu ─┬─ state-space
//                         ├─ dt (H) ─ bias, softplus ──────────────────────┘  recurrence ─ · ─
//                         └─ z (E) ──────────────────────────────────────────────────────silu
//   ─ RMSNorm ─ output projection
//
// The RMSNorm before the mixer is the block's; the recurrence is ops/ssd.
//
// State: the last conv_width - 1 inputs of the convolution, (B, conv_width - 1, E + 2 G N), and
// that of the recurrence, (B,H,E/H,N), in float32.
#pragma once

#include "nn/causal_convolution.hpp"
#include "nn/linear.hpp"
#include "nn/mixer.hpp"
#include "nn/option.hpp"
#include "nn/rms_norm.hpp"

namespace pararnn::nn {

struct Mamba2Options {
  int64_t expand = 2;          // E/d
  int64_t head_channels = 64;  // E/H
  int64_t state = 128;         // N
  int64_t groups = 1;          // G, of heads that share b and c
  int64_t conv_width = 4;      // taps of the causal convolution

  bool operator==(const Mamba2Options&) const = default;
};

template <MaybeConst<Mamba2Options> Options, class Visit>
void for_each_option(Options& options, Visit&& visit) {
  visit("expand", options.expand,
        Option{"--mamba2-expand", "channels of mamba2's recurrence, times the width", 1});
  visit("head_channels", options.head_channels,
        Option{"--mamba2-head-channels", "channels of a head of mamba2", 1});
  visit("state", options.state,
        Option{"--mamba2-state", "state components of each channel of mamba2", 1});
  visit("groups", options.groups,
        Option{"--mamba2-groups", "groups of mamba2's heads, each with its own b and c", 1});
  visit("conv_width", options.conv_width,
        Option{"--mamba2-conv-width", "steps that mamba2's causal convolution sees", 1});
}

void validate(const Mamba2Options& options, const ModelConfig& config, const OptionNames& name);
std::string describe(const Mamba2Options& options, const ModelConfig& config);
MixerSizes sizes_of(const Mamba2Options& options, const ModelConfig& config, const Pass& pass);
std::shared_ptr<Mixer> make_mixer(const Mamba2Options& options, const ModelConfig& config);

struct Mamba2Mixer : Mixer {
  Mamba2Mixer(const Mamba2Options& options, const ModelConfig& config);
  std::pair<torch::Tensor, MixerState> forward(const torch::Tensor& x, const MixerState& state,
                                               const Documents& documents) override;

 private:
  Mamba2Options options_;
  int64_t channels_, heads_;  // E, H
  std::shared_ptr<Linear> input_;
  std::shared_ptr<CausalConvolution> convolution_;
  torch::Tensor decay_log_;  // log(-a), (H)
  torch::Tensor step_bias_;  // of dt before softplus, (H)
  torch::Tensor skip_;       // from x to y, (H)
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<Linear> output_;
};

}  // namespace pararnn::nn
