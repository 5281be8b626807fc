// AdamW for one number, and what the kernel of adamw_kernel.hpp takes.
#pragma once

#include "pararnn/core/math.hpp"

namespace pararnn::ops {

/// What an update is made with, the same for every number (adamw.hpp).
template <class A>
struct AdamWFactors {
  A gradient_scale;    // by which clipping multiplies the gradient
  A step_size;         // rate / (1−β1ᵗ)
  A inverse_root;      // 1 / √(1−β2ᵗ)
  A change1, change2;  // 1−β1 and 1−β2
  A epsilon;
  A decay;  // rate · weight decay

  PARARNN_FN void update(A gradient, A& master, A& first_moment, A& second_moment) const {
    gradient = gradient * gradient_scale;
    first_moment += change1 * (gradient - first_moment);
    second_moment += change2 * (gradient * gradient - second_moment);
    master -= decay * master;
    master -= step_size * first_moment / (sqrt(second_moment) * inverse_root + epsilon);
  }
};

/// A block of so many threads updates so many numbers of one tensor.
inline constexpr int kAdamWThreads = 256, kAdamWNumbers = 8192;
/// Tensors of one launch: a power of two, few enough to be arguments of a kernel.
inline constexpr int kAdamWTensors = 64;

/// `count` numbers, next to each other, from block `first_block` of the grid on.
struct AdamWEntry {
  void* weight;  // of W, as the gradient
  const void* gradient;
  float *master, *first_moment, *second_moment;
  long long count;
  int first_block;
  bool decays;
};

/// What the device knows alone: the factors that differ from update to update, and whether there is
/// one at all.
struct AdamWScalars {
  float gradient_scale, step_size, inverse_root, decay, finite;
};

/// Tensors that are not there begin behind the last block.
struct AdamWProblem {
  const AdamWScalars* scalars;
  float change1, change2, epsilon;
  AdamWEntry tensors[kAdamWTensors];
};

}  // namespace pararnn::ops
