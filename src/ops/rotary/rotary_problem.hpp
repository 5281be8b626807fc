// What the kernel of rotary_kernel.hpp takes.
#pragma once

namespace pararnn::ops {

inline constexpr int kRotaryThreads = 128;
inline constexpr int kMostRotaryPairs = 256;

/// (B,T,H,n) with n channels next to each other, and the result next to each other.
struct RotaryTensor {
  int heads;
  long long batch_stride, step_stride, head_stride;
  const void* x;
  void* y;
};
struct Rotary {
  long long batch, steps;
  int pairs;      // n/2
  int direction;  // 1, or -1 for the gradient
  long long position_batch_stride, position_step_stride;
  const long long* positions;
  RotaryTensor tensors[2];  // queries and keys
  /// How far each pair turns a step, in parts of 2^-64 of a whole turn.
  unsigned long long turns[kMostRotaryPairs];
};

/// The `turns` of so many pairs, which are those of rotary.hpp; 2π turn once.
void set_turns(unsigned long long* turns, int pairs, double base);

}  // namespace pararnn::ops
