// AdamW over named parameters (ops/adamw). Parameters that do not decay (norms, biases, recurrent
// weights, residual scales) are marked by whoever lists them. What is trained are the masters, in
// full precision; a model that computes in less has their roundings.
#pragma once

#include <torch/types.h>

#include <map>
#include <string>
#include <vector>

#include "ops/adamw/adamw.hpp"

namespace pararnn::train {

/// A tensor to train, with the name it is stored under and whether weight decay applies to it.
/// Its master in full precision is itself where that is what it is stored in; otherwise the one
/// that is given, of which it is the rounding, or a copy.
struct Parameter {
  std::string name;
  torch::Tensor tensor;
  bool decays = true;
  torch::Tensor master = {};
};

using ops::AdamWOptions;

class AdamW {
 public:
  /// At least one parameter, all on one device and contiguous.
  AdamW(std::vector<Parameter> parameters, AdamWOptions options);

  /// One update, from the gradients that the backward pass left and within options.clip; a
  /// parameter without one is left alone. Where their norm is not finite, or `loss`, if it is
  /// given, (), nothing changes. Returns the norm before it was clipped. All of it happens on the
  /// parameters' device, where the learning rate is too, (), double; nothing waits for it.
  torch::Tensor step(const torch::Tensor& learning_rate, const torch::Tensor& loss = {});

  /// Those that the backward pass left.
  std::vector<torch::Tensor> gradients() const;
  /// Forgets them.
  void zero_gradients();

  /// The moments, named `<parameter>.first_moment` and `<parameter>.second_moment`, and `updates`,
  /// their count.
  std::map<std::string, torch::Tensor> state() const;
  /// Takes a state() over. Throws Error on a missing name or another shape.
  void load_state(const std::map<std::string, torch::Tensor>& state);

  /// The masters, by the names of their parameters.
  std::map<std::string, torch::Tensor> weights() const;
  /// Takes weights() over, and rounds the parameters anew. Throws as load_state.
  void load_weights(const std::map<std::string, torch::Tensor>& weights);

  const std::vector<Parameter>& parameters() const { return parameters_; }

 private:
  std::vector<Parameter> parameters_;
  AdamWOptions options_;
  std::vector<torch::Tensor> first_moments_, second_moments_;
  torch::Tensor updates_;  // a number, on the parameters' device
};

/// The Euclidean norm of all gradients together, of which there must be one, summed in full
/// precision: (), on their device.
torch::Tensor gradient_norm(const std::vector<Parameter>& parameters);

}  // namespace pararnn::train
