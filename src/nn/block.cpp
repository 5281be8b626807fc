#include "nn/block.hpp"

#include <cmath>
#include <utility>

#include "nn/initial_weights.hpp"

namespace pararnn::nn {

using torch::Tensor;

Block::Block(const ModelConfig& config, int64_t layer) {
  const double gain = 1 / std::sqrt(2.0 * static_cast<double>(config.layers));
  mixer_norm_ =
      register_module("mixer_norm", std::make_shared<RmsNorm>(config.width, config.norm_epsilon));
  mixer_ = register_module("mixer", make_mixer(config, layer));
  mixer_scale_ = register_parameter("mixer_scale", torch::ones(config.width, weight_options()));
  mlp_norm_ =
      register_module("mlp_norm", std::make_shared<RmsNorm>(config.width, config.norm_epsilon));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(config.width, config.hidden_width(), gain));
  mlp_scale_ = register_parameter("mlp_scale", torch::ones(config.width, weight_options()));
}

// What was read is given up before the next part takes memory.

/// The mixer's part: its branch is still to be added.
Block::Result Block::mix(ResidualStream stream, const MixerState& state,
                         const Documents& documents) {
  const auto [x, normed] = mixer_norm_->forward(std::exchange(stream, {}));
  auto [mixed, next_state] = mixer_->forward(normed, state, documents);
  return {{x, mixer_scale_, mixed}, next_state};
}

/// The MLP's.
ResidualStream Block::add_mlp(ResidualStream stream) {
  const auto [x, normed] = mlp_norm_->forward(std::exchange(stream, {}));
  return {x, mlp_scale_, mlp_->forward(normed)};
}

/// All of the block, to the sum.
Block::Result Block::pass(ResidualStream stream, const MixerState& state,
                          const Documents& documents) {
  auto [mixed, next_state] = mix(std::move(stream), state, documents);
  return {{add_mlp(std::move(mixed)).sum()}, next_state};
}

Block::Result Block::forward(ResidualStream stream, const MixerState& state,
                             const Documents& documents) {
  const Recompute again = torch::GradMode::is_enabled() ? recompute_ : Recompute::kNothing;
  if (again == Recompute::kBlock) {
    // Of the sum there is one tensor to keep, of a branch that is still to be added two.
    return recomputed(&Block::pass, parameters(), {}, {stream.sum()}, state, documents);
  }
  if (again == Recompute::kNothing) {
    auto [mixed, next_state] = mix(std::move(stream), state, documents);
    return {add_mlp(std::move(mixed)), next_state};
  }
  std::vector<Tensor> parameters = mixer_norm_->parameters();
  for (const Tensor& of_mixer : mixer_->parameters()) parameters.push_back(of_mixer);
  auto [mixed, next_state] = recomputed(&Block::mix, parameters, mixer_scale_,
                                        std::exchange(stream, {}), state, documents);
  return {add_mlp(std::move(mixed)), next_state};
}

/// What a part gives, of which only the inputs are kept. `scale`: of the branch that it leaves to
/// be added, if it leaves one.
Block::Result Block::recomputed(Part part, const std::vector<Tensor>& parameters,
                                const Tensor& scale, const ResidualStream& stream,
                                const MixerState& state, const Documents& documents) {
  std::vector<Tensor> inputs{stream.x, stream.scale, stream.branch};
  const auto given_before_state = static_cast<ptrdiff_t>(inputs.size());
  inputs.insert(inputs.end(), state.begin(), state.end());
  const auto f = [self = std::static_pointer_cast<Block>(shared_from_this()), part, documents,
                  given_before_state](const std::vector<Tensor>& given) {
    auto [after, next_state] =
        (self.get()->*part)({given[0], given[1], given[2]},
                            {given.begin() + given_before_state, given.end()}, documents);
    std::vector<Tensor> results{std::move(after.x)};
    if (after.branch.defined()) results.push_back(std::move(after.branch));
    results.insert(results.end(), next_state.begin(), next_state.end());
    return results;
  };
  const std::vector<Tensor> results = recompute(f, inputs, parameters);
  const ptrdiff_t of_stream = scale.defined() ? 2 : 1;
  return {{results[0], scale, scale.defined() ? results[1] : Tensor()},
          {results.begin() + of_stream, results.end()}};
}

bool Block::decays(std::string_view name, const Tensor& parameter) const {
  constexpr std::string_view mixer = "mixer.";
  return name.starts_with(mixer) ? mixer_->decays(name.substr(mixer.size()), parameter)
                                 : parameter.dim() >= 2;
}

}  // namespace pararnn::nn
