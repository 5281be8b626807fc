#include "train/optimizer.hpp"

#include <map>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "ops/rows.hpp"

namespace pararnn::train {
namespace {

using torch::Tensor;

std::string first_moment_name(const Parameter& parameter) {
  return parameter.name + ".first_moment";
}
std::string second_moment_name(const Parameter& parameter) {
  return parameter.name + ".second_moment";
}
constexpr const char* kUpdatesName = "updates";

void take(const std::map<std::string, Tensor>& state, const std::string& name, const Tensor& into) {
  const auto found = state.find(name);
  require(found != state.end(), "the optimizer's state has no tensor {}", name);
  require(found->second.sizes() == into.sizes(),
          "the optimizer's tensor {} has another shape than the model's", name);
  into.copy_(found->second);
}

}  // namespace

AdamW::AdamW(std::vector<Parameter> parameters, AdamWOptions options)
    : parameters_(std::move(parameters)),
      options_(options),
      updates_(torch::zeros(
          {}, parameters_.at(0).tensor.options().dtype(torch::kFloat32).requires_grad(false))) {
  for (Parameter& parameter : parameters_) {
    const Tensor tensor = parameter.tensor.detach();
    const auto dtype = ops::arithmetic_dtype(tensor.scalar_type());
    if (tensor.scalar_type() == dtype || !parameter.master.defined())
      parameter.master = tensor.to(dtype);
    first_moments_.push_back(torch::zeros_like(parameter.master));
    second_moments_.push_back(torch::zeros_like(parameter.master));
  }
}

Tensor AdamW::step(const Tensor& learning_rate, const Tensor& loss) {
  torch::NoGradGuard no_gradient;
  const Tensor norm = gradient_norm(parameters_);
  const Tensor finite = loss.defined() ? norm.isfinite() & loss.isfinite() : norm.isfinite();
  std::vector<ops::AdamWTensors> tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, tensor, decays, master] = parameters_[i];
    if (!tensor.grad().defined()) continue;
    tensors.push_back({tensor.detach(), tensor.grad().contiguous(), master, first_moments_[i],
                       second_moments_[i], decays});
  }
  ops::adamw(tensors, options_, learning_rate, norm, finite, updates_);
  return norm;
}

std::vector<Tensor> AdamW::gradients() const {
  std::vector<Tensor> gradients;
  for (const Parameter& parameter : parameters_) {
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  }
  return gradients;
}

void AdamW::zero_gradients() {
  for (Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
}

std::map<std::string, Tensor> AdamW::state() const {
  std::map<std::string, Tensor> state{{kUpdatesName, updates_}};
  for (size_t i = 0; i < parameters_.size(); ++i) {
    state[first_moment_name(parameters_[i])] = first_moments_[i];
    state[second_moment_name(parameters_[i])] = second_moments_[i];
  }
  return state;
}

void AdamW::load_state(const std::map<std::string, Tensor>& state) {
  take(state, kUpdatesName, updates_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    take(state, first_moment_name(parameters_[i]), first_moments_[i]);
    take(state, second_moment_name(parameters_[i]), second_moments_[i]);
  }
}

std::map<std::string, Tensor> AdamW::weights() const {
  std::map<std::string, Tensor> weights;
  for (const Parameter& parameter : parameters_) weights[parameter.name] = parameter.master;
  return weights;
}

void AdamW::load_weights(const std::map<std::string, Tensor>& weights) {
  for (const Parameter& parameter : parameters_) {
    take(weights, parameter.name, parameter.master);
    parameter.tensor.detach().copy_(parameter.master);
  }
}

Tensor gradient_norm(const std::vector<Parameter>& parameters) {
  torch::NoGradGuard no_gradient;
  std::map<torch::ScalarType, std::vector<Tensor>> gradients;  // one pass takes one dtype
  for (const Parameter& parameter : parameters) {
    const Tensor& gradient = parameter.tensor.grad();
    if (gradient.defined()) gradients[gradient.scalar_type()].push_back(gradient);
  }
  std::vector<Tensor> norms;
  for (const auto& [dtype, of_dtype] : gradients) {
    for (Tensor& norm : at::_foreach_norm(of_dtype, /*ord=*/2, ops::arithmetic_dtype(dtype)))
      norms.push_back(std::move(norm));
  }
  return torch::stack(norms).norm();
}

}  // namespace pararnn::train
