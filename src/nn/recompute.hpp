// Activation recomputation (Chen et al., "Training deep nets with sublinear memory cost",
// arXiv:1604.06174): of a part of a model only its inputs are kept for the backward pass, which
// computes the part once more. Memory for time.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace pararnn::nn {

/// What a block of a model computes again in its backward pass.
enum class Recompute {
  kNothing,
  kMixer,  // from the block's input to the mixer's output
  kBlock   // all of it: only the residual stream before it is kept
};

/// The same for a whole model: the first `blocks` blocks are computed again, of the next `mixers`
/// their mixers. The first ones, as the backward pass comes to them last, when the activations of
/// the others are given back.
struct RecomputePlan {
  int64_t blocks = 0, mixers = 0;

  Recompute of_block(int64_t block) const {
    return block < blocks            ? Recompute::kBlock
           : block < blocks + mixers ? Recompute::kMixer
                                     : Recompute::kNothing;
  }
  bool operator==(const RecomputePlan&) const = default;
};

/// A function of tensors that gives the same each time. It may be given undefined ones, and gives
/// none.
using TensorFunction = std::function<std::vector<torch::Tensor>(const std::vector<torch::Tensor>&)>;

/// f(inputs), which keeps `inputs` alone for the backward pass. Differentiable, once, in them and
/// in `parameters`: leaves that f reads by itself. The host does not wait for a GPU.
std::vector<torch::Tensor> recompute(const TensorFunction& f,
                                     const std::vector<torch::Tensor>& inputs,
                                     const std::vector<torch::Tensor>& parameters);

}  // namespace pararnn::nn
