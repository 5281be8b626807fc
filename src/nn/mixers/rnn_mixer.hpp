// The mixer of the published nonlinear RNN language models (ParaRNN, arXiv:2510.21450):
//
//   x ─ input projection d→2d ─┬─ branch ─ causal convolution ─ projection to u ─ cell ─ RMSNorm ─
//   · ─ output projection
//                              └─ gate ───────────────────────────────────────────────── silu ───┘
//
// The RMSNorm before the mixer is the block's. The projection to the cell's pre-activations u is
// block-diagonal over heads; its biases are the cell's. Inputs that a cell marks as side inputs
// (time gaps, masks) are not projected: in a language model they are the constant 1.
//
// State: the last conv_width - 1 inputs of the convolution, (B, conv_width - 1, d), and the cell's
// state, (B,S,d).
#pragma once

#include "nn/causal_convolution.hpp"
#include "nn/head_projection.hpp"
#include "nn/linear.hpp"
#include "nn/mixer.hpp"
#include "nn/option.hpp"
#include "nn/rms_norm.hpp"

namespace pararnn::nn {

struct RnnOptions {
  std::string cell = "gru";  // as find_cell takes it
  int64_t heads = 1;         // blocks of the block-diagonal projection to u; 1: dense
  int64_t conv_width = 4;    // taps of the causal convolution
  double weight_bound = 0;   // on the size of the recurrent weights; 0: none

  bool operator==(const RnnOptions&) const = default;
};

template <MaybeConst<RnnOptions> Options, class Visit>
void for_each_option(Options& options, Visit&& visit) {
  visit("cell", options.cell,
        Option{.flag = "--cell",
               .meaning = "the recurrent cell: a name (pararnn cells lists them) or a file, "
                          "./cell.hpp or ./cells.hpp:Struct",
               .is_cell = true});
  visit("heads", options.heads,
        Option{"--heads", "blocks of the cell's block-diagonal input projection; 1: dense", 1});
  visit("conv_width", options.conv_width,
        Option{"--conv-width", "steps that the causal convolution before the cell sees", 1});
  visit("weight_bound", options.weight_bound,
        Option{"--weight-bound", "bound on the size of the recurrent weights; 0: none"});
}

void validate(const RnnOptions& options, const ModelConfig& config, const OptionNames& name);
std::string describe(const RnnOptions& options, const ModelConfig& config);
MixerSizes sizes_of(const RnnOptions& options, const ModelConfig& config, const Pass& pass);
std::shared_ptr<Mixer> make_mixer(const RnnOptions& options, const ModelConfig& config);

struct RnnMixer : Mixer {
  RnnMixer(const RnnOptions& options, const ModelConfig& config);
  std::pair<torch::Tensor, MixerState> forward(const torch::Tensor& x, const MixerState& state,
                                               const Documents& documents) override;
  void clip_weights() override;
  bool decays(std::string_view name, const torch::Tensor& parameter) const override;
  void set_scan_options(const ScanOptions& options) override { scan_options_ = options; }

 private:
  /// u with a row of ones for each input of the cell that is given rather than projected.
  torch::Tensor with_side_inputs(const torch::Tensor& u) const;

  std::string cell_;
  std::vector<int64_t> learned_;  // for each input of the cell: which row of the projection, or -1
  int64_t learned_inputs_ = 0;
  double weight_bound_;
  ScanOptions scan_options_;
  std::shared_ptr<Linear> input_;
  std::shared_ptr<CausalConvolution> convolution_;
  std::shared_ptr<HeadProjection> projection_;
  torch::Tensor recurrent_weight_;  // w (P,d)
  std::shared_ptr<RmsNorm> norm_;
  std::shared_ptr<Linear> output_;
};

}  // namespace pararnn::nn
