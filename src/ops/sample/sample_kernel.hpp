// Drawing tokens on a GPU (sample.hpp), without a sort: whether a token is kept is known from the
// weights of those before it, and only the one that wins must be looked at.
//
// A cluster of kSplit blocks has a row, whose weights stay in registers: a thread has kPacks of
// them, a cluster's threads apart.
#pragma once

#include "ops/sample/sample_problem.hpp"
#include "pararnn/core/math.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/cuda/storage.hpp"

namespace pararnn::ops {

/// Of some tokens: a sum, and the largest score with its token, the first of several.
struct SampleTotals {
  float sum, score;
  int token;

  PARARNN_DEVICE_FN void take(float other_score, int other) {
    if (less(score, other_score) || (score == other_score && other < token)) {
      score = other_score;
      token = other;
    }
  }
  PARARNN_DEVICE_FN void add(const SampleTotals& other) {
    sum += other.sum;
    take(other.score, other.token);
  }
  /// Over `lanes` neighbouring lanes, for all of them to know.
  PARARNN_DEVICE_FN void add_in_warp(int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      add({__shfl_xor_sync(0xffffffffu, sum, distance),
           __shfl_xor_sync(0xffffffffu, score, distance),
           __shfl_xor_sync(0xffffffffu, token, distance)});
    }
  }
};

/// -log(1 - (bits + 1/2) / 2³²), accurate relative to the result.
PARARNN_DEVICE_FN float exponential_of(unsigned bits) {
  const float x = (static_cast<float>(bits) + 0.5f) * 0x1p-32f;
  const float series = x * (1 + x * (1.0f / 2 + x * (1.0f / 3 + x * (1.0f / 4 + x / 5))));
  return select(less(x, 1.0f / 64), series, -log(1 - x));
}

template <int kPacks, int kSplit>
struct SampleRow {
  static constexpr int kWarps = kSampleThreads / cuda::kWarp;
  // Beyond this many weights a thread they lie in local memory, and loops are loops.
  static constexpr int kUnroll = kPacks <= 32 ? kPacks : 1;
  static constexpr float kNone = -1;  // scores but logits are positive

  struct Memory {
    SampleTotals of_warps[kWarps];
    float of_blocks[2][kSplit][4];  // one to read while the other is written
  };
  Memory& memory;
  int turn = 0;
  float weight[kPacks];

  PARARNN_DEVICE_FN explicit SampleRow(Memory& shared) : memory(shared) {}

  PARARNN_DEVICE_FN static int token(int pack) {
    const int rank = static_cast<int>(blockIdx.x) % kSplit;
    return (pack * kSplit + rank) * kSampleThreads + static_cast<int>(threadIdx.x);
  }
  /// What all threads of the row hold, added up in one order, for all of them to know.
  PARARNN_DEVICE_FN SampleTotals total(SampleTotals mine) {
    mine.add_in_warp(cuda::kWarp);
    __syncthreads();  // what was added up before has been read
    if (threadIdx.x % cuda::kWarp == 0) memory.of_warps[threadIdx.x / cuda::kWarp] = mine;
    __syncthreads();
    mine = memory.of_warps[threadIdx.x % kWarps];
    mine.add_in_warp(kWarps);
    if constexpr (kSplit > 1) {
      if (threadIdx.x < kSplit) {
        float* to = memory.of_blocks[turn][blockIdx.x % kSplit];
        const int rank = static_cast<int>(threadIdx.x);
        cuda::store_in_cluster<kSplit>(to, rank, mine.sum, mine.score);
        cuda::store_in_cluster<kSplit>(to + 2, rank,
                                       __uint_as_float(static_cast<unsigned>(mine.token)), 0);
      }
      cuda::come_to_cluster<kSplit>();
      cuda::wait_for_cluster<kSplit>();
      const auto block = [&](int rank) {
        const float* of = memory.of_blocks[turn][rank];
        return SampleTotals{of[0], of[1], static_cast<int>(__float_as_uint(of[2]))};
      };
      mine = block(0);
      for (int rank = 1; rank < kSplit; ++rank) mine.add(block(rank));
      turn = 1 - turn;
    }
    return mine;
  }
};

template <int kPacks, int kSplit>
__global__ void __launch_bounds__(kSampleThreads, kPacks <= 16 ? 2 : 1)
    sample_tokens(const __grid_constant__ SampleProblem problem) {
  using Row = SampleRow<kPacks, kSplit>;
  using Memory = typename Row::Memory;
  PARARNN_SHARED(Memory, memory);
  cuda::come_to_cluster<kSplit>();  // a block must be there before others write to its memory
  const float infinity = __uint_as_float(0x7f800000u);
  const long long row = blockIdx.x / kSplit;
  const float* logits = problem.logits + row * problem.vocabulary;
  const long long position = problem.positions[row];
  Row values{memory};
  SampleTotals mine{0, -infinity, 0};  // the sum counts what is no number
#pragma unroll Row::kUnroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = Row::token(p);
    const float logit = i < problem.vocabulary ? __ldg(logits + i) : -infinity;
    mine.sum += less(logit, infinity) ? 0.0f : 1.0f;
    values.weight[p] = logit;
    if (less(mine.score, logit)) {
      mine.score = logit;
      mine.token = i;
    }
  }
  cuda::wait_for_cluster<kSplit>();
  const SampleTotals largest = values.total(mine);
  const bool wrong = largest.sum > 0 || largest.score == -infinity;
  const auto end = [&](int token) {
    if (threadIdx.x != 0 || blockIdx.x % kSplit != 0) return;
    problem.tokens[row] = wrong ? 0 : token;
    problem.drawn[position % problem.remembered * problem.rows + row] = wrong ? -1 : token;
    problem.positions[row] = position + 1;
  };
  if (wrong || problem.temperature == 0) return end(largest.token);
#pragma unroll Row::kUnroll
  for (int p = 0; p < kPacks; ++p) {
    values.weight[p] = exp((values.weight[p] - largest.score) / problem.temperature);
  }
  // All tokens draw. If one wins that is not kept, neither are those that come after it: they
  // drop out, and the others draw once more.
  const unsigned long long start = start_of_draw(problem.seeds[row], position);
  float wanted = 0, last_weight = infinity;
  int last = -1;
  const auto comes_before = [&](float w, int i) {
    return last < 0 || less(last_weight, w) || (w == last_weight && i < last);
  };
  for (;;) {
    mine = {0, Row::kNone, 0};
#pragma unroll Row::kUnroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = Row::token(p);
      if (i >= problem.vocabulary || !comes_before(values.weight[p], i)) continue;
      mine.sum += values.weight[p];
      const float ratio = values.weight[p] / exponential_of(random_bits(start, i));
      if (less(mine.score, ratio)) {
        mine.score = ratio;
        mine.token = i;
      }
    }
    const SampleTotals drawn = values.total(mine);
    if (last < 0) wanted = problem.top_p * drawn.sum;
    last = drawn.token;
    if (problem.top_p >= 1) return end(last);
    last_weight = exp((__ldg(logits + last) - largest.score) / problem.temperature);
    mine = {0, Row::kNone, 0};
#pragma unroll Row::kUnroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = Row::token(p);
      if (i < problem.vocabulary && comes_before(values.weight[p], i)) {
        mine.sum += values.weight[p];
      }
    }
    if (less(values.total(mine).sum, wanted)) return end(last);
  }
}

}  // namespace pararnn::ops
