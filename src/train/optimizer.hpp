// AdamW with decoupled weight decay (Loshchilov & Hutter, 2019), over named parameters. One fused
// pass over memory updates a parameter and its two moments. Parameters that do not decay (norms,
// biases, recurrent weights, residual scales) are marked by whoever lists them.
#pragma once

#include <torch/types.h>

#include <map>
#include <string>
#include <vector>

namespace pararnn::train {

/// A tensor to train, with the name it is stored under and whether weight decay applies to it.
struct Parameter {
  std::string name;
  torch::Tensor tensor;
  bool decays = true;
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

/// m ← β1 m + (1−β1) g,  v ← β2 v + (1−β2) g²,
/// p ← p (1 − rate·decay) − rate · (m/(1−β1ᵗ)) / (√(v/(1−β2ᵗ)) + ε).
class AdamW {
 public:
  /// At least one parameter, all on one device.
  AdamW(std::vector<Parameter> parameters, AdamWOptions options);

  /// One update, from the gradients that the backward pass left; a parameter without one is left
  /// alone.
  void step(double learning_rate);

  /// Forgets the gradients.
  void zero_gradients();

  /// The moments, named `<parameter>.first_moment` and `<parameter>.second_moment`, and `updates`,
  /// their count.
  std::map<std::string, torch::Tensor> state() const;
  /// Takes a state() over. Throws Error on a missing name or another shape.
  void load_state(const std::map<std::string, torch::Tensor>& state);

  const std::vector<Parameter>& parameters() const { return parameters_; }

 private:
  std::vector<Parameter> parameters_;
  AdamWOptions options_;
  std::vector<torch::Tensor> first_moments_, second_moments_;
  torch::Tensor updates_;  // a number, kept where the parameters are for the fused kernel
};

/// The Euclidean norm of all gradients together, of which there must be one: (), on their device.
torch::Tensor gradient_norm(const std::vector<Parameter>& parameters);

/// Scales all gradients, whose norm together is `norm`, so that it is at most `largest_norm` (0: no
/// bound). Gradients are left alone when the norm is not finite.
void clip_gradients(const std::vector<Parameter>& parameters, double norm, double largest_norm);

}  // namespace pararnn::train
