#include "nn/rnn_mixer.hpp"

#include <algorithm>
#include <cmath>
#include <pararnn/cells.hpp>

#include "ops/scan.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

// The longest memory given to a channel at first, in steps.
constexpr double kLongestMemory = 128;

/// Which way the first pre-activation of a cell drives its memory: +1 where it opens a forget gate,
/// -1 where it opens an update gate, 0 for a cell without gates, or one not known here.
int memory_sign(const std::string& cell) {
  if (cell == "gru") return -1;
  if (cell == "lstm" || cell == "lstm_cifg" || cell == "slstm") return 1;
  return 0;
}

/// Gate biases under which the channels forget over 2 to kLongestMemory steps, spread evenly on a
/// logarithmic scale: a forget gate sigmoid(b) = 1 - 1/m has b = log(m - 1) (Tallec and Ollivier,
/// "Can recurrent neural networks warp time?", 2018).
Tensor memory_biases(torch::IntArrayRef shape) {
  const Tensor memory = torch::pow(kLongestMemory / 2, torch::rand(shape)) * 2;
  return torch::log(memory - 1);
}

}  // namespace

RnnMixer::RnnMixer(const ModelConfig& config)
    : cell_(config.cell), weight_bound_(config.weight_bound) {
  const CellInfo& cell = find_cell(config.cell);
  const int64_t width = config.width;
  input_ = register_module("input", std::make_shared<Linear>(width, 2 * width));
  convolution_ =
      register_module("convolution", std::make_shared<CausalConvolution>(width, config.conv_width));
  projection_ = register_module("projection",
                                std::make_shared<HeadProjection>(width, config.heads, cell.inputs));
  const double reach = weight_bound_ > 0 ? std::min(0.5, weight_bound_) : 0.5;
  recurrent_weight_ = register_parameter(
      "recurrent_weight", torch::empty({cell.params, width}).uniform_(-reach, reach));
  norm_ = register_module("norm", std::make_shared<RmsNorm>(width, config.norm_epsilon));
  output_ = register_module(
      "output", std::make_shared<Linear>(width, width,
                                         1 / std::sqrt(2.0 * std::max<int64_t>(config.layers, 1))));
  if (const int sign = memory_sign(config.cell)) {
    torch::NoGradGuard no_grad;
    Tensor bias = projection_->bias_of(0);
    bias.copy_(sign * memory_biases(bias.sizes()));
  }
}

std::pair<Tensor, MixerState> RnnMixer::forward(const Tensor& x, const MixerState& state) {
  const auto halves = input_->forward(x).chunk(2, -1);
  const Tensor &branch = halves[0], &gate = halves[1];
  const auto [convolved, tail] = convolution_->forward(branch, state.empty() ? Tensor() : state[0]);
  const std::optional<Tensor> h0 = state.empty() ? std::nullopt : std::make_optional(state[1]);
  const auto [y, hT] = scan(projection_->forward(convolved), recurrent_weight_, h0, cell_);
  return {output_->forward(norm_->forward(y, y.scalar_type(), gate)), {tail, hT}};
}

void RnnMixer::clip_weights() {
  if (weight_bound_ == 0) return;
  torch::NoGradGuard no_grad;
  recurrent_weight_.clamp_(-weight_bound_, weight_bound_);
}

}  // namespace pararnn::nn
