// Rotary position embedding (Su et al., "RoFormer", arXiv:2104.09864): pairs of channels of queries
// and keys are rotated by angles in proportion to their position, so that their products depend on
// the distance of positions alone. Pair i of n/2 is channels i and i + n/2, as in the published
// code of Llama, and turns by p · base^(-2i/n) at position p.
#pragma once

#include <torch/types.h>

#include <utility>

namespace pararnn::ops {

/// The most channels of a head that the GPU's kernel takes.
inline constexpr int64_t kMostRotaryChannels = 512;

/// q (B,T,H,n), k (B,T,H',n) of q's dtype, positions (B,T) or (1,T), int64, from 0 to 2³² - 1 ->
/// both rotated, contiguous. Differentiable in q and k. Accurate to the rounding of the arithmetic
/// at every position.
std::pair<torch::Tensor, torch::Tensor> rotary(const torch::Tensor& q, const torch::Tensor& k,
                                               const torch::Tensor& positions, double base = 10000);

/// The same in LibTorch's operations: the definition.
std::pair<torch::Tensor, torch::Tensor> rotary_definition(const torch::Tensor& q,
                                                          const torch::Tensor& k,
                                                          const torch::Tensor& positions,
                                                          double base = 10000);

/// Turns q and k as rotary does, or back with a direction of -1, into places of their shapes and
/// dtype, which may be q and k themselves; and copies v, where given, as it is. No gradients. It is
/// one kernel on a GPU where the last dimension of all is contiguous.
struct RotaryPart {
  torch::Tensor from, to;
};
void rotate_into(const RotaryPart& q, const RotaryPart& k, const torch::Tensor& positions,
                 double base, int direction, const RotaryPart& v = {});

/// The positions of T steps on a device: from 0 on, (1,T), or those of each row from `start` (B),
/// int64, on, (B,T); either may be undefined. With `reset` (B,T), bool, they begin with 0 anew at
/// each step that it marks.
torch::Tensor positions_of(int64_t steps, torch::Device device, const torch::Tensor& start = {},
                           const torch::Tensor& reset = {});

}  // namespace pararnn::ops
