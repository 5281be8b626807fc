#include "nn/mixers/rnn_mixer.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "cells/cell_registry.hpp"
#include "nn/config.hpp"
#include "nn/initial_weights.hpp"
#include "ops/halves/halves.hpp"
#include "ops/scan/scan_kernels.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

// The longest memory given to a channel at first, in steps.
constexpr double kLongestMemory = 128;

/// Gate biases under which the channels forget over 2 to kLongestMemory steps, spread evenly on a
/// logarithmic scale: a forget gate sigmoid(b) = 1 - 1/m has b = log(m - 1) (Tallec and Ollivier,
/// "Can recurrent neural networks warp time?", 2018).
Tensor memory_biases(torch::IntArrayRef shape) {
  const Tensor memory = torch::pow(kLongestMemory / 2, torch::rand(shape, weight_options())) * 2;
  return torch::log(memory - 1);
}

}  // namespace

RnnMixer::RnnMixer(const RnnOptions& options, const ModelConfig& config)
    : weight_bound_(options.weight_bound) {
  const CellDefinition& cell = find_cell(options.cell);
  cell_ = cell.key();
  for (int input = 0; input < cell.inputs; ++input) {
    const bool given = std::ranges::find(cell.side_inputs, input) != cell.side_inputs.end();
    learned_.push_back(given ? -1 : learned_inputs_++);
  }
  const int64_t width = config.width;
  input_ = register_module("input", std::make_shared<Linear>(width, 2 * width));
  convolution_ = register_module("convolution",
                                 std::make_shared<CausalConvolution>(width, options.conv_width));
  projection_ = register_module(
      "projection", std::make_shared<HeadProjection>(width, options.heads, learned_inputs_));
  const double reach = weight_bound_ > 0 ? std::min(0.5, weight_bound_) : 0.5;
  recurrent_weight_ = register_parameter(
      "recurrent_weight",
      torch::empty({cell.params, width}, weight_options()).uniform_(-reach, reach));
  norm_ = register_module("norm", std::make_shared<RmsNorm>(width, config.norm_epsilon));
  output_ = register_module(
      "output", std::make_shared<Linear>(width, width,
                                         1 / std::sqrt(2.0 * std::max<int64_t>(config.layers, 1))));
  if (cell.memory_input >= 0 && learned_[cell.memory_input] >= 0) {
    torch::NoGradGuard no_grad;
    Tensor bias = projection_->bias_of(learned_[cell.memory_input]);
    bias.copy_(cell.memory_direction * memory_biases(bias.sizes()));
  }
}

Tensor RnnMixer::with_side_inputs(const Tensor& u) const {
  if (learned_inputs_ == int64_t(learned_.size())) return u;
  const int64_t inputs = u.dim() - 2;  // of (B,T,U,d) or (B,T,H,U,d/H)
  auto sizes = u.sizes().vec();
  sizes[inputs] = 1;
  const Tensor ones = torch::ones(sizes, u.options());
  std::vector<Tensor> rows;
  for (const int64_t row : learned_) rows.push_back(row < 0 ? ones : u.narrow(inputs, row, 1));
  return torch::cat(rows, inputs);
}

std::pair<Tensor, MixerState> RnnMixer::forward(const Tensor& x, const MixerState& state,
                                                const Documents& documents) {
  const Tensor& reset = documents.reset;
  const auto [branch, gate] = ops::split_halves(input_->forward(x));
  const auto [convolved, tail] =
      convolution_->forward(branch, state.empty() ? Tensor() : state[0], documents);
  const std::optional<Tensor> h0 = state.empty() ? std::nullopt : std::make_optional(state[1]);
  ScanSequences sequences;
  if (reset.defined()) sequences.reset = reset;
  const Tensor u = with_side_inputs(projection_->forward(convolved));
  const bool one_step = x.size(1) == 1 && h0 && !reset.defined() && !torch::GradMode::is_enabled();
  Tensor y, hT;
  if (one_step) {
    std::tie(y, hT) = step(u.select(1, 0), recurrent_weight_, *h0, cell_);
    y = y.unsqueeze(1);
  } else {
    std::tie(y, hT) = scan(u, recurrent_weight_, h0, cell_, scan_options_, sequences);
  }
  return {output_->forward(norm_->forward(y, gate)), {tail, hT}};
}

void RnnMixer::clip_weights() {
  if (weight_bound_ == 0) return;
  torch::NoGradGuard no_grad;
  recurrent_weight_.clamp_(-weight_bound_, weight_bound_);
}

bool RnnMixer::decays(std::string_view name, const Tensor& parameter) const {
  return name != "recurrent_weight" && name != "projection.bias" && parameter.dim() >= 2;
}

void validate(const RnnOptions& options, const ModelConfig& config, const OptionNames& name) {
  require(config.width % options.heads == 0, "{} must divide {}: {} does not divide {}",
          name(options.heads), name(config.width), options.heads, config.width);
  find_cell(options.cell);  // throws with the names there are
}

std::string describe(const RnnOptions& options, const ModelConfig&) {
  return find_cell(options.cell).name;
}

MixerSizes sizes_of(const RnnOptions& options, const ModelConfig& config, const Pass& pass) {
  const CellDefinition& cell = find_cell(options.cell);
  const double d = double(config.width), channels = d / double(options.heads);
  const double inputs = cell.inputs, learned = inputs - double(cell.side_inputs.size());
  const double taps = double(options.conv_width);
  const torch::Device device = pass.activations.device();
  return {.tensors = 7,
          .parameters = {.in_precision = d * (3 * d + taps + learned * channels),
                         .in_float32 = d * (learned + cell.params + 1)},
          // The norm, both halves of the input projection, the convolution, u, y, the gated norm,
          // and some states.
          .kept = {.in_precision = (6 + inputs) * d,
                   .in_float32 = cell.state * d / double(checkpoint_interval_on(device))},
          .backward = {.in_precision = inputs * d},  // u's gradient, beside u
          .held = {.in_precision = (5 + inputs) * d, .in_float32 = 0},
          .state = {.in_precision = (taps - 1) * d, .in_float32 = cell.state * d}};
}

std::shared_ptr<Mixer> make_mixer(const RnnOptions& options, const ModelConfig& config) {
  return std::make_shared<RnnMixer>(options, config);
}

}  // namespace pararnn::nn
