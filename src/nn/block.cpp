#include "nn/block.hpp"

#include <cmath>

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

std::pair<ResidualStream, MixerState> Block::forward(const ResidualStream& stream,
                                                     const MixerState& state, const Tensor& reset,
                                                     torch::ScalarType dtype) {
  const auto [x, to_mix] = mixer_norm_->forward(stream, dtype);
  const auto [mixed, next_state] = mixer_->forward(to_mix, state, reset);
  const auto [with_mixed, to_mlp] = mlp_norm_->forward({x, mixer_scale_, mixed}, dtype);
  return {{with_mixed, mlp_scale_, mlp_->forward(to_mlp)}, next_state};
}

}  // namespace pararnn::nn
