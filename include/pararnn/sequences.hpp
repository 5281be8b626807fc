// Rows of which a part starts anew: several sequences packed in one row, one behind another, or
// flags that reset the state. One mechanism serves both: before some steps the state is replaced,
// by the initial state of the sequence that begins there, or by zero, and nothing of what was
// before goes on, forward or backward.
//
//   offsets 0 3 3 8:   | 0 0 0 | 2 2 2 2 2 |     sequence 1 is empty: its hT is its h0
//   reset flags:         . . .   x . . x .       starts at steps 3 and 6 too
//
// A kernel takes a block of K steps at a time. On a CPU it has one word for it that says before
// which of them the state starts anew: mostly none, and then the block is run as any other.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn {

/// What a caller says. At most one of the two.
struct Sequences {
  const int* offsets = nullptr;          // (N+1): steps [offsets[n], offsets[n+1]) of the only row
  long long count = 0;                   // N
  const unsigned char* reset = nullptr;  // (B,T), not 0: the state is zero before this step

  PARARNN_FN bool none() const { return !offsets && !reset; }
};

/// Of one block of K < 32 steps.
struct BlockStarts {
  unsigned bits = 0;  // bit i, 0 <= i <= K: the state starts anew before step i of the block; step
                      // K is the next block's first. The end of a row of sequences counts.
  int sequence = 0;   // to which the block's first step belongs
};

/// The sequence to which step t belongs: the last n with offsets[n] <= t, so that it is not empty.
/// Some sequence of the N, whatever the offsets are. Each round's numbers are read together.
PARARNN_FN int sequence_at(const int* offsets, long long count, long long t) {
  constexpr int kParts = 8;
  int low = 0, high = static_cast<int>(count);  // offsets[low] <= t < offsets[high]
  while (high - low > 1) {
    const int part = (high - low + kParts - 1) / kParts;
    int passed = 0;
    for (int k = 1; k < kParts; ++k) {
      const int at = low + k * part < high ? low + k * part : high;
      passed += (at < high) & (offsets[at] <= t);
    }
    low += passed * part;
    high = low + part < high ? low + part : high;
  }
  return low;
}

/// The sequence that begins at step t, where n ends; mostly n + 1.
PARARNN_FN int sequence_after(const Sequences& s, int n, long long t) {
  if (n + 2 <= s.count && s.offsets[n + 1] == t && s.offsets[n + 2] > t) return n + 1;
  return sequence_at(s.offsets, s.count, t);
}

/// The sequence that ends before step t, where n begins; mostly n - 1.
PARARNN_FN int sequence_before(const Sequences& s, int n, long long t) {
  if (n >= 1 && s.offsets[n] == t && s.offsets[n - 1] < t) return n - 1;
  return sequence_at(s.offsets, s.count, t - 1);
}

/// The starts of the K steps from `begin` on of a row of `steps`; of packed sequences, the first of
/// these steps is of number `sequence`.
template <int K>
PARARNN_FN BlockStarts starts_of_block(const Sequences& s, long long steps, long long row,
                                       long long begin, int sequence) {
  BlockStarts result{};
  if (s.offsets) {
    result.sequence = sequence;
    int n = sequence;
    if (s.offsets[n] == begin) result.bits = 1;
    long long end = s.offsets[n + 1], before = begin;
    while (end > before && end <= begin + K) {
      result.bits |= 1u << (end - begin);
      if (end >= steps) break;
      n = sequence_after(s, n, end);
      before = end;
      end = s.offsets[n + 1];
    }
  } else {
    for (int i = 0; i <= K && begin + i < steps; ++i) {
      if (s.reset[row * steps + begin + i]) result.bits |= 1u << i;
    }
  }
  return result;
}

}  // namespace pararnn
