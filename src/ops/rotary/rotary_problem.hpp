// What the kernel of rotary_kernel.hpp takes.
#pragma once

namespace pararnn::ops {

inline constexpr int kRotaryThreads = 128;
inline constexpr int kMostRotaryPairs = 256;

/// A place of (B,T,H,n), of which n channels are next to each other.
struct RotaryPlace {
  long long batch_stride, step_stride, head_stride;
  void* data;
};
struct RotaryTensor {
  int heads;
  RotaryPlace from, to;  // may be the same
};
struct Rotary {
  long long batch, steps;
  int pairs;      // n/2
  int direction;  // 1, or -1 for the gradient
  long long position_batch_stride, position_step_stride;
  const long long* positions;
  RotaryTensor tensors[3];  // queries and keys; and values, if any, which are not turned
  /// How far each pair turns a step, in parts of 2^-64 of a whole turn.
  unsigned long long turns[kMostRotaryPairs];
};

/// The `turns` of so many pairs, which are those of rotary.hpp; 2π turn once.
void set_turns(unsigned long long* turns, int pairs, double base);

}  // namespace pararnn::ops
