// One update by AdamW with decoupled weight decay (Loshchilov & Hutter, 2019), of many tensors at
// once. With g the gradient, scaled down where its norm over all tensors is above a bound:
//
//   m ← β1 m + (1−β1) g,  v ← β2 v + (1−β2) g²,
//   p ← p (1 − rate·decay) − rate · (m/(1−β1ᵗ)) / (√(v/(1−β2ᵗ)) + ε)
//
// p is in fp32, and so are both moments. The weight that a model computes with may be stored in
// less: it is p rounded, to nearest, and p its master. All of it is one pass over memory, which
// reads g, p, m and v and writes p, m, v and the weight.
#pragma once

#include <torch/types.h>

#include <span>

namespace pararnn::ops {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip = 0;  // bound on the norm of the gradient; 0: none
};

/// A parameter and what is kept of it, all of one shape and contiguous. Weight and gradient have
/// one dtype; the others are in fp32 (fp64 for fp64). A weight of that dtype is its own master:
/// then the two are one tensor.
struct AdamWTensors {
  torch::Tensor weight, gradient, master, first_moment, second_moment;
  bool decays = true;
};

/// One update of all tensors, which are on one device, as is what follows, all (): `norm`, that of
/// all gradients together; `updates`, float, how many updates were made, to which this one is
/// added; `finite`, bool: where it is false, nothing changes; and `learning_rate`, double. The host
/// does not wait, and what it hands over is the same at each update, so a graph can hold one.
void adamw(std::span<const AdamWTensors> tensors, const AdamWOptions& options,
           const torch::Tensor& learning_rate, const torch::Tensor& norm,
           const torch::Tensor& finite, const torch::Tensor& updates);

/// The same in LibTorch's operations: the definition, and what takes dtypes that have no loops.
void adamw_definition(std::span<const AdamWTensors> tensors, const AdamWOptions& options,
                      const torch::Tensor& learning_rate, const torch::Tensor& norm,
                      const torch::Tensor& finite, const torch::Tensor& updates);

}  // namespace pararnn::ops
