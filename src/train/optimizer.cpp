#include "train/optimizer.hpp"

#include <cmath>
#include <utility>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

std::vector<torch::Tensor> gradients_of(const std::vector<Parameter>& parameters) {
  std::vector<torch::Tensor> gradients;
  for (const Parameter& parameter : parameters) {
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  }
  return gradients;
}

std::string first_moment_name(const Parameter& parameter) {
  return parameter.name + ".first_moment";
}
std::string second_moment_name(const Parameter& parameter) {
  return parameter.name + ".second_moment";
}
constexpr const char* kUpdatesName = "updates";

}  // namespace

AdamW::AdamW(std::vector<Parameter> parameters, AdamWOptions options)
    : parameters_(std::move(parameters)),
      options_(options),
      updates_(torch::zeros(
          {}, parameters_.at(0).tensor.options().dtype(torch::kFloat32).requires_grad(false))) {
  for (const Parameter& parameter : parameters_) {
    first_moments_.push_back(torch::zeros_like(parameter.tensor));
    second_moments_.push_back(torch::zeros_like(parameter.tensor));
  }
}

void AdamW::step(double learning_rate) {
  torch::NoGradGuard no_gradient;
  updates_ += 1;
  for (const bool decays : {true, false}) {
    std::vector<torch::Tensor> tensors, gradients, first_moments, second_moments;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const torch::Tensor& tensor = parameters_[i].tensor;
      if (parameters_[i].decays != decays || !tensor.grad().defined()) continue;
      tensors.push_back(tensor);
      gradients.push_back(tensor.grad());
      first_moments.push_back(first_moments_[i]);
      second_moments.push_back(second_moments_[i]);
    }
    if (tensors.empty()) continue;
    const std::vector<torch::Tensor> updates(tensors.size(), updates_);
    at::_fused_adamw_(tensors, gradients, first_moments, second_moments, /*max_exp_avg_sqs=*/{},
                      updates, learning_rate, options_.beta1, options_.beta2,
                      decays ? options_.weight_decay : 0, options_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false);
  }
}

void AdamW::zero_gradients() {
  for (Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
}

std::map<std::string, torch::Tensor> AdamW::state() const {
  std::map<std::string, torch::Tensor> state{{kUpdatesName, updates_}};
  for (size_t i = 0; i < parameters_.size(); ++i) {
    state[first_moment_name(parameters_[i])] = first_moments_[i];
    state[second_moment_name(parameters_[i])] = second_moments_[i];
  }
  return state;
}

void AdamW::load_state(const std::map<std::string, torch::Tensor>& state) {
  const auto take = [&](const std::string& name, torch::Tensor& into) {
    const auto found = state.find(name);
    require(found != state.end(), "the optimizer's state has no tensor {}", name);
    require(found->second.sizes() == into.sizes(),
            "the optimizer's tensor {} has another shape than the model's", name);
    into.copy_(found->second);
  };
  torch::NoGradGuard no_gradient;
  take(kUpdatesName, updates_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    take(first_moment_name(parameters_[i]), first_moments_[i]);
    take(second_moment_name(parameters_[i]), second_moments_[i]);
  }
}

torch::Tensor gradient_norm(const std::vector<Parameter>& parameters) {
  torch::NoGradGuard no_gradient;
  return torch::stack(at::_foreach_norm(gradients_of(parameters))).norm();
}

void clip_gradients(const std::vector<Parameter>& parameters, double norm, double largest_norm) {
  if (largest_norm == 0 || !std::isfinite(norm) || norm <= largest_norm) return;
  torch::NoGradGuard no_gradient;
  at::_foreach_mul_(gradients_of(parameters), largest_norm / norm);
}

}  // namespace pararnn::train
