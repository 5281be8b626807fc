#include "nn/block.hpp"

#include <cmath>

#include "ops/residual/residual.hpp"

namespace pararnn::nn {

using torch::Tensor;

Block::Block(const ModelConfig& config) {
  const double gain = 1 / std::sqrt(2.0 * static_cast<double>(config.layers));
  mixer_norm_ =
      register_module("mixer_norm", std::make_shared<RmsNorm>(config.width, config.norm_epsilon));
  mixer_ = register_module("mixer", make_mixer(config));
  mixer_scale_ = register_parameter("mixer_scale", torch::ones(config.width));
  mlp_norm_ =
      register_module("mlp_norm", std::make_shared<RmsNorm>(config.width, config.norm_epsilon));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(config.width, config.hidden_width(), gain));
  mlp_scale_ = register_parameter("mlp_scale", torch::ones(config.width));
}

std::pair<Tensor, MixerState> Block::forward(const Tensor& x, const MixerState& state,
                                             const Tensor& reset, torch::ScalarType dtype) {
  const auto [mixed, next_state] = mixer_->forward(mixer_norm_->forward(x, dtype), state, reset);
  const Tensor stream = ops::add_scaled(x, mixer_scale_, mixed);
  return {ops::add_scaled(stream, mlp_scale_, mlp_->forward(mlp_norm_->forward(stream, dtype))),
          next_state};
}

}  // namespace pararnn::nn
