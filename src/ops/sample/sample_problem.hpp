// What sample_kernel.hpp takes, and the random numbers that host and GPU draw alike.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn::ops {

/// Threads of a block. Where there are clusters, so many blocks have a row; or else one.
inline constexpr int kSampleThreads = 256, kSampleCluster = 8;

/// Each row draws a token from its logits, and counts it in `positions`. What it drew goes to
/// `tokens`, and to row position % `remembered` of `drawn` (remembered,rows); -1 goes there and 0
/// to `tokens` where the logits are not numbers. Temperature 0: the likeliest.
struct SampleProblem {
  long long rows;
  int vocabulary;
  float temperature, top_p;
  const float* logits;     // (rows,vocabulary)
  const long long* seeds;  // of the rows
  long long* positions;    // of the rows
  long long* tokens;       // of the rows
  int* drawn;
  long long remembered;
};

/// SplitMix64's mixing of bits (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
PARARNN_FN unsigned long long mix_bits(unsigned long long x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// The numbers of a row's draw at a position are SplitMix64's from this start on.
PARARNN_FN unsigned long long start_of_draw(unsigned long long seed, unsigned long long position) {
  constexpr unsigned long long kGolden = 0x9e3779b97f4a7c15ull;
  return mix_bits(mix_bits(seed + kGolden) + kGolden * (position + 1));
}

/// Number `token` of a draw, uniform in 0 to 2³² - 1.
PARARNN_FN unsigned random_bits(unsigned long long start, int token) {
  const auto steps = static_cast<unsigned long long>(token) + 1;
  return static_cast<unsigned>(mix_bits(start + steps * 0x9e3779b97f4a7c15ull) >> 32);
}

}  // namespace pararnn::ops
