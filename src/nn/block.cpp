#include "nn/block.hpp"

#include <cmath>
#include <tuple>

namespace pararnn::nn {

using torch::Tensor;

Block::Block(const ModelConfig& config, int64_t layer) {
  const double gain = 1 / std::sqrt(2.0 * static_cast<double>(config.layers));
  mixer_norm_ =
      register_module("mixer_norm", std::make_shared<RmsNorm>(config.width, config.norm_epsilon));
  mixer_ = register_module("mixer", make_mixer(config, layer));
  mixer_scale_ = register_parameter("mixer_scale", torch::ones(config.width));
  mlp_norm_ =
      register_module("mlp_norm", std::make_shared<RmsNorm>(config.width, config.norm_epsilon));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(config.width, config.hidden_width(), gain));
  mlp_scale_ = register_parameter("mlp_scale", torch::ones(config.width));
}

std::pair<ResidualStream, MixerState> Block::forward(ResidualStream stream, const MixerState& state,
                                                     const Tensor& reset) {
  // What was read is given up before the next part takes memory.
  auto [x, normed] = mixer_norm_->forward(stream);
  stream = {};
  auto [mixed, next_state] = mixer_->forward(normed, state, reset);
  std::tie(x, normed) = mlp_norm_->forward({x, mixer_scale_, mixed});
  mixed = Tensor();
  return {{x, mlp_scale_, mlp_->forward(normed)}, next_state};
}

bool Block::decays(std::string_view name, const Tensor& parameter) const {
  constexpr std::string_view mixer = "mixer.";
  return name.starts_with(mixer) ? mixer_->decays(name.substr(mixer.size()), parameter)
                                 : parameter.dim() >= 2;
}

}  // namespace pararnn::nn
