// Drawing tokens on a GPU (sample.hpp), without a sort: the weight of the last token that is kept
// is found by bisection on the weights' bits, as positive floats are in the order of their bits.
//
// A block has a row, whose weights stay in registers: a thread has kPacks of them, a block apart.
#pragma once

#include "ops/sample/sample_problem.hpp"
#include "pararnn/core/math.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/cuda/storage.hpp"

namespace pararnn::ops {

/// Combines what the threads of a block hold, in one order, for all of them to know.
template <class T, class Combine>
PARARNN_DEVICE_FN T combine_in_block(T mine, const Combine& combine) {
  constexpr int kWarps = kSampleThreads / cuda::kWarp;
  using Values = T[kWarps];
  PARARNN_SHARED(Values, values);
  for (int distance = cuda::kWarp / 2; distance > 0; distance /= 2) {
    mine = combine(mine, __shfl_xor_sync(0xffffffffu, mine, distance));
  }
  __syncthreads();  // what was combined before has been read
  if (threadIdx.x % cuda::kWarp == 0) values[threadIdx.x / cuda::kWarp] = mine;
  __syncthreads();
  // Each warp combines them once more, in the same way.
  mine = values[threadIdx.x % kWarps];
  for (int distance = kWarps / 2; distance > 0; distance /= 2) {
    mine = combine(mine, __shfl_xor_sync(0xffffffffu, mine, distance));
  }
  return mine;
}

template <class T>
PARARNN_DEVICE_FN T sum_in_block(T mine) {
  return combine_in_block(mine, [](T a, T b) { return a + b; });
}

/// The token with the largest score, the first of several; the same on all threads. Scores are
/// positive.
PARARNN_DEVICE_FN int best_in_block(float score, int token) {
  const float largest =
      combine_in_block(score, [](float a, float b) { return less(a, b) ? b : a; });
  constexpr int kNone = 0x7fffffff;
  return combine_in_block(score == largest ? token : kNone,
                          [](int a, int b) { return a < b ? a : b; });
}

/// -log(1 - (bits + 1/2) / 2³²), accurate relative to the result.
PARARNN_DEVICE_FN float exponential_of(unsigned bits) {
  const float x = (static_cast<float>(bits) + 0.5f) * 0x1p-32f;
  const float series = x * (1 + x * (1.0f / 2 + x * (1.0f / 3 + x * (1.0f / 4 + x / 5))));
  return select(less(x, 1.0f / 64), series, -log(1 - x));
}

template <int kPacks>
struct SampleRow {
  // Beyond this many weights a thread they lie in local memory, and loops are loops.
  static constexpr int kUnroll = kPacks <= 64 ? kPacks : 1;
  float weight[kPacks];

  PARARNN_DEVICE_FN static int token(int pack) {
    return pack * kSampleThreads + static_cast<int>(threadIdx.x);
  }
  /// Adds f(weight, token) up over the row.
  template <class T, class F>
  PARARNN_DEVICE_FN T sum(const F& f) const {
    T mine = 0;
#pragma unroll kUnroll
    for (int p = 0; p < kPacks; ++p) mine += f(weight[p], token(p));
    return sum_in_block(mine);
  }
  PARARNN_DEVICE_FN float mass_from(unsigned least) const {
    return sum<float>([&](float w, int) { return __float_as_uint(w) >= least ? w : 0.0f; });
  }
};

template <int kPacks>
__global__ void __launch_bounds__(kSampleThreads)
    sample_tokens(const __grid_constant__ SampleProblem problem) {
  using Row = SampleRow<kPacks>;
  const float infinity = __uint_as_float(0x7f800000u);
  const long long row = blockIdx.x;
  const float* logits = problem.logits + row * problem.vocabulary;
  const long long position = problem.positions[row];
  Row values;
  float largest = -infinity;
  int largest_token = 0, wrong = 0;
#pragma unroll Row::kUnroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = Row::token(p);
    const float logit = i < problem.vocabulary ? __ldg(logits + i) : -infinity;
    wrong += !less(logit, infinity);
    values.weight[p] = logit;
    if (less(largest, logit)) {
      largest = logit;
      largest_token = i;
    }
  }
  const float mine = largest;
  largest = combine_in_block(mine, [](float a, float b) { return less(a, b) ? b : a; });
  wrong = sum_in_block(wrong) + (largest == -infinity);
  const auto end = [&](int token) {
    if (threadIdx.x != 0) return;
    problem.tokens[row] = wrong ? 0 : token;
    problem.drawn[position % problem.remembered * problem.rows + row] = wrong ? -1 : token;
    problem.positions[row] = position + 1;
  };
  if (wrong) return end(0);
  if (problem.temperature == 0) {
    constexpr int kNone = 0x7fffffff;
    return end(combine_in_block(mine == largest ? largest_token : kNone,
                                [](int a, int b) { return a < b ? a : b; }));
  }
#pragma unroll Row::kUnroll
  for (int p = 0; p < kPacks; ++p) {
    values.weight[p] = exp((values.weight[p] - largest) / problem.temperature);
  }
  // The least weight that is kept, as bits, and the last token of those that have it.
  unsigned least = 0;
  int last = problem.vocabulary;
  if (problem.top_p < 1) {
    const float wanted = problem.top_p * values.mass_from(0);
    unsigned beyond = __float_as_uint(1.0f) + 1;
    while (beyond - least > 1) {
      const unsigned middle = least + (beyond - least) / 2;
      (values.mass_from(middle) >= wanted ? least : beyond) = middle;
    }
    const float weight = __uint_as_float(least);
    const float above = values.mass_from(least + 1);
    const int equals =
        values.template sum<int>([&](float w, int) { return __float_as_uint(w) == least; });
    const float missing = -floor((above - wanted) / weight);  // of them; no number for weight 0
    if (less(missing, static_cast<float>(equals))) {
      const int needed = less(missing, 1.0f) ? 1 : static_cast<int>(missing);
      int before = -1;
      while (last - before > 1) {
        const int middle = before + (last - before) / 2;
        const int count = values.template sum<int>(
            [&](float w, int i) { return __float_as_uint(w) == least && i <= middle; });
        (count >= needed ? last : before) = middle;
      }
    }
  }
  const unsigned long long start = start_of_draw(problem.seeds[row], position);
  float best = -1;
  int token = 0;
#pragma unroll Row::kUnroll
  for (int p = 0; p < kPacks; ++p) {
    const unsigned bits = __float_as_uint(values.weight[p]);
    const int i = Row::token(p);
    if (bits < least || (bits == least && i > last) || i >= problem.vocabulary) continue;
    const float ratio = values.weight[p] / exponential_of(random_bits(start, i));
    if (less(best, ratio)) {
      best = ratio;
      token = i;
    }
  }
  end(best_in_block(best, token));
}

}  // namespace pararnn::ops
