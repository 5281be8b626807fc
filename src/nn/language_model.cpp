#include "nn/language_model.hpp"

#include <cmath>
#include <string>

#include "base/error.hpp"
#include "nn/initial_weights.hpp"
#include "nn/linear.hpp"
#include "ops/embedding/embedding.hpp"

namespace pararnn::nn {

using torch::Tensor;

LanguageModelImpl::LanguageModelImpl(const ModelConfig& config, const torch::Device& device)
    : config_(config) {
  validate(config);
  const WeightsOn weights_on(device);
  const auto vocabulary_matrix = [&] {
    return torch::randn({config.vocabulary, config.width}, weight_options())
        .div_(std::sqrt(double(config.width)));
  };
  embedding_ = register_parameter("embedding", vocabulary_matrix());
  output_ = config.tie_embedding ? embedding_ : register_parameter("output", vocabulary_matrix());
  for (int64_t i = 0; i < config.layers; ++i) {
    blocks_.push_back(
        register_module("block" + std::to_string(i), std::make_shared<Block>(config, i)));
    blocks_.back()->to(device);  // what was made elsewhere
  }
  norm_ = register_module("norm", std::make_shared<RmsNorm>(config.width, config.norm_epsilon));
}

Tensor LanguageModelImpl::forward(const Tensor& tokens) { return forward(tokens, {}).first; }

std::pair<Tensor, LanguageModelState> LanguageModelImpl::forward(const Tensor& tokens,
                                                                 const LanguageModelState& state,
                                                                 const Tensor& reset) {
  LanguageModelState next;
  const Tensor hidden = hidden_states(tokens, state, reset, &next);
  return {linear_map(hidden, output_).to(embedding_.scalar_type()), std::move(next)};
}

std::pair<ops::CrossEntropy, LanguageModelState> LanguageModelImpl::loss(
    const Tensor& tokens, const Tensor& targets, const ops::CrossEntropyOptions& options,
    const LanguageModelState& state, const Tensor& reset) {
  LanguageModelState next;
  const Tensor hidden = hidden_states(tokens, state, reset, &next);
  return {ops::linear_cross_entropy(hidden, output_, targets, options), std::move(next)};
}

ops::CrossEntropy LanguageModelImpl::loss_of_whole(const Tensor& tokens, const Tensor& targets,
                                                   const ops::CrossEntropyOptions& options,
                                                   const Tensor& reset) {
  return ops::linear_cross_entropy(hidden_states(tokens, {}, reset, nullptr), output_, targets,
                                   options);
}

LanguageModelState LanguageModelImpl::reserve(const LanguageModelState& state,
                                              int64_t steps) const {
  LanguageModelState reserved;
  for (size_t i = 0; i < state.layers.size(); ++i) {
    reserved.layers.push_back(blocks_.at(i)->reserve(state.layers[i], steps));
  }
  return reserved;
}

Tensor LanguageModelImpl::hidden_states(const Tensor& tokens, const LanguageModelState& state,
                                        const Tensor& reset, LanguageModelState* next) {
  require(tokens.dim() == 2, "tokens must be (batch, steps), not of {} dimensions", tokens.dim());
  require(tokens.scalar_type() == torch::kLong || tokens.scalar_type() == torch::kInt,
          "tokens must be int32 or int64, not {}", torch::toString(tokens.scalar_type()));
  if (tokens.is_cpu() && tokens.numel() > 0) {
    const auto [least, largest] = tokens.aminmax();
    require(least.item<int64_t>() >= 0 && largest.item<int64_t>() < config_.vocabulary,
            "tokens must be from 0 to {}, the model's vocabulary less one, but range from {} to {}",
            config_.vocabulary - 1, least.item<int64_t>(), largest.item<int64_t>());
  }
  require(state.layers.empty() || state.layers.size() == blocks_.size(),
          "the state is of {} layers, the model of {}", state.layers.size(), blocks_.size());
  const MixerState at_first;
  const auto state_of = [&](size_t i) -> const MixerState& {
    return state.layers.empty() ? at_first : state.layers[i];
  };
  if (tokens.numel() == 0) {  // which changes nothing
    if (next) *next = state;
    return ops::embedding(embedding_, tokens);
  }
  Documents documents(reset);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i]->prepare(documents, state_of(i), tokens.size(0), tokens.size(1));
  }
  ResidualStream stream{.x = ops::embedding(embedding_, tokens)};
  for (size_t i = 0; i < blocks_.size(); ++i) {
    auto [after, layer] = blocks_[i]->forward(std::move(stream), state_of(i), documents);
    stream = std::move(after);
    if (next) next->layers.push_back(std::move(layer));
  }
  return norm_->forward(stream).second;
}

Tensor LanguageModelImpl::step(const Tensor& tokens, LanguageModelState& state) {
  torch::NoGradGuard no_grad;
  auto [logits, next] = forward(tokens.unsqueeze(1), state);
  state = std::move(next);
  return logits.squeeze(1);
}

void LanguageModelImpl::clip_weights() {
  for (const auto& block : blocks_) block->clip_weights();
}

void LanguageModelImpl::set_scan_options(const ScanOptions& options) {
  for (const auto& block : blocks_) block->set_scan_options(options);
}

void LanguageModelImpl::set_recompute(const RecomputePlan& plan) {
  recompute_ = plan;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i]->set_recompute(plan.of_block(static_cast<int64_t>(i)));
  }
}

void LanguageModelImpl::to_precision(torch::ScalarType dtype) {
  torch::NoGradGuard no_grad;
  for (auto& item : named_parameters()) {
    Tensor& parameter = item.value();
    if (decays(item.key(), parameter)) parameter.set_data(parameter.to(dtype));
  }
}

bool LanguageModelImpl::decays(std::string_view name, const Tensor& parameter) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const std::string block = "block" + std::to_string(i) + ".";
    if (name.starts_with(block)) return blocks_[i]->decays(name.substr(block.size()), parameter);
  }
  return parameter.dim() >= 2;
}

}  // namespace pararnn::nn
