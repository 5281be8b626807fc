// What the kernels of decode_attention_kernel.hpp take. The cache has room for C tokens of B rows.
#pragma once

#include "ops/decode/decode_problem.hpp"
#include "ops/rotary/rotary_problem.hpp"

namespace pararnn::ops {

/// Threads of a block, and the most query heads that share what it reads.
inline constexpr int kAttentionThreads = 128, kMostSharingQueries = 8;
/// The most parts that a row's tokens are cut into, and the fewest tokens of one.
inline constexpr int kMostSplits = 256, kLeastSplit = 64;

/// Rotates queries and keys, and writes to the cache. Groups: the two halves of a head, whose
/// channels are pairs.
struct DecodeRotation {
  int query_heads, key_heads;
  long long capacity;
  const long long *begin, *read;  // (B)
  float* queries;                 // (B,H,n)
  void *keys, *values;            // bfloat16, (B,C,H',n)
  unsigned long long turns[kMostRotaryPairs];
};

/// A grid has blocks of query heads and rows along x, and splits along y.
struct DecodeAttention {
  int query_heads, key_heads, channels, splits;
  long long capacity;
  float scale;                // of scores, as powers of 2
  const float* queries;       // (B,H,n)
  const void *keys, *values;  // bfloat16, (B,C,H',n)
  const long long* begin;     // (B)
  long long* read;            // (B)
  void* next;                 // bfloat16, (B,H n)
  unsigned* arrived;          // (B,H+1): blocks that are done, of query heads and of the row
  // Where there are several splits, what each has found: values Σ exp2(score - largest) v, largest,
  // and Σ exp2(score - largest).
  float* partial;   // (B,H,splits,n)
  float* largests;  // (B,H,splits)
  float* sums;      // (B,H,splits)
};

}  // namespace pararnn::ops
