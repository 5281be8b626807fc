#include "nn/mixers/mamba2_mixer.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "nn/config.hpp"
#include "ops/halves/halves.hpp"
#include "ops/ssd/ssd.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

/// Biases whose softplus is spread evenly on a logarithmic scale, from 0.001 to 0.1, as published.
Tensor step_biases(int64_t heads) {
  constexpr double kShortest = 1e-3, kLongest = 1e-1;
  const Tensor dt =
      kShortest * torch::pow(kLongest / kShortest, torch::rand({heads}, weight_options()));
  return dt + torch::log(-torch::expm1(-dt));
}

}  // namespace

Mamba2Mixer::Mamba2Mixer(const Mamba2Options& options, const ModelConfig& config)
    : options_(options),
      channels_(options.expand * config.width),
      heads_(channels_ / options.head_channels) {
  const int64_t convolved = channels_ + 2 * options.groups * options.state;
  input_ = register_module("input",
                           std::make_shared<Linear>(config.width, channels_ + convolved + heads_));
  convolution_ = register_module(
      "convolution", std::make_shared<CausalConvolution>(convolved, options.conv_width,
                                                         ConvolutionEnding::kBiasAndSilu));
  // -a is uniform from 1 to 16, as published.
  decay_log_ = register_parameter(
      "decay_log", torch::log(torch::empty({heads_}, weight_options()).uniform_(1, 16)));
  step_bias_ = register_parameter("step_bias", step_biases(heads_));
  skip_ = register_parameter("skip", torch::ones({heads_}, weight_options()));
  norm_ = register_module("norm", std::make_shared<RmsNorm>(channels_, config.norm_epsilon));
  output_ = register_module(
      "output", std::make_shared<Linear>(channels_, config.width,
                                         1 / std::sqrt(2.0 * std::max<int64_t>(config.layers, 1))));
}

std::pair<Tensor, MixerState> Mamba2Mixer::forward(const Tensor& input, const MixerState& state,
                                                   const Documents& documents) {
  const Tensor& reset = documents.reset;
  const int64_t groups = options_.groups, components = options_.state;
  const auto projected = ops::split_parts(
      input_->forward(input), {{channels_}, {channels_ + 2 * groups * components}, {heads_}});
  const Tensor &gate = projected[0], &steps = projected[2];
  const auto [convolved, tail] =
      convolution_->forward(projected[1], state.empty() ? Tensor() : state[0], documents);
  const auto parts = ops::split_parts(
      convolved, {{heads_, channels_ / heads_}, {groups, components}, {groups, components}});
  const Tensor &x = parts[0], &b = parts[1], &c = parts[2];
  const Tensor dt = torch::softplus(steps.to(step_bias_.scalar_type()) + step_bias_);
  const Tensor a = -decay_log_.exp();
  const bool one_step =
      input.size(1) == 1 && !state.empty() && !reset.defined() && !torch::GradMode::is_enabled();
  Tensor y, h;
  if (one_step) {
    const auto only = [](const Tensor& t) { return t.select(1, 0); };
    std::tie(y, h) = ops::ssd_step(only(x), only(dt), a, only(b), only(c), skip_, state[1]);
    y = y.unsqueeze(1);
  } else {
    const auto h0 = state.empty() ? std::nullopt : std::make_optional(state[1]);
    std::tie(y, h) = ops::ssd(x, dt, a, b, c, skip_, h0, reset);
  }
  y = norm_->forward(y.flatten(2), gate, ops::NormGate::kBefore);
  return {output_->forward(y), {tail, h}};
}

void validate(const Mamba2Options& options, const ModelConfig& config, const OptionNames& name) {
  const int64_t channels = options.expand * config.width;
  require(channels % options.head_channels == 0,
          "{} must divide {} times {}: {} does not divide {}", name(options.head_channels),
          name(options.expand), name(config.width), options.head_channels, channels);
  require(channels / options.head_channels % options.groups == 0,
          "{} must divide the heads of mamba2: {} does not divide {}", name(options.groups),
          options.groups, channels / options.head_channels);
}

std::string describe(const Mamba2Options& options, const ModelConfig& config) {
  return fmt::format("mamba2 ({} heads)", options.expand * config.width / options.head_channels);
}

MixerSizes sizes_of(const Mamba2Options& options, const ModelConfig& config, const Pass& pass) {
  const double d = double(config.width), e = double(options.expand) * d;
  const double heads = e / double(options.head_channels), n = double(options.state);
  const double shared = double(options.groups) * n;  // channels of b, or of c
  const double convolved = e + 2 * shared, projected = e + convolved + heads;
  const double taps = double(options.conv_width);
  const double steps = double(pass.steps), chunk = double(ops::ssd_chunk(pass.steps));
  const double padded = std::ceil(steps / chunk) * chunk / steps;  // the last chunk is made whole
  const double states = padded * e * n / chunk;                    // between chunks, a token
  const double scores = padded * heads * chunk;                    // within chunks
  const bool on_cpu = pass.activations.device().is_cpu();
  const bool stores_scores =
      ops::ssd_stores_scores(pass.activations, pass.steps, options.head_channels, options.state);
  return {
      .tensors = 8,
      .parameters = {.in_precision = projected * d + taps * convolved + e * d,
                     .in_float32 = convolved + 3 * heads + e},
      // The norm, the input projection, the convolution, the states, y, the gated norm; dt
      // before and behind softplus.
      .kept = {.in_precision = d + projected + convolved + states + 2 * e, .in_float32 = 2 * heads},
      // The gradient of the projection, dy, x and dy with their factors. Where scores are stored, x
      // and dy by head too, and the masked scores or their gradient; on a CPU these with the scores
      // of each head, their weights, and what is summed, or, where chunks are short, the gradients
      // of states and their sums; on a GPU what is summed to dx, and gradients of the first and
      // last states.
      .backward =
          on_cpu ? Numbers{.in_precision = projected + e + 4 * padded * e + 2 * scores,
                           .in_float32 = std::max(5 * scores, 4 * states)}
                 : Numbers{.in_precision = projected + convolved + e + 2 * padded * e + states +
                                           (stores_scores ? 5 * padded * e + scores : 0),
                           .in_float32 = 2 * e * n / steps},
      .held = {.in_precision = d + projected + convolved + 2 * padded * e + states +
                               (stores_scores ? scores + (on_cpu ? 0 : 2 * padded * e) : 0),
               .in_float32 = 2 * heads + (on_cpu ? 3 * scores : 0)},
      .state = {.in_precision = (taps - 1) * convolved, .in_float32 = e * n},
      .state_of_token = {},
      // The scores, what they multiply, and the states, from x and to y.
      .operations = 2 * padded * (shared * chunk + e * chunk + 2 * e * n)};
}

std::shared_ptr<Mixer> make_mixer(const Mamba2Options& options, const ModelConfig& config) {
  return std::make_shared<Mamba2Mixer>(options, config);
}

}  // namespace pararnn::nn
