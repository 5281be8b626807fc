// Rotary position embedding on a GPU (rotary.hpp), of queries and keys at once. How far a pair has
// turned at a position is a product of integers modulo a whole turn, so it is exact at any
// position; sine and cosine are then those of an angle in [-π, π]. A block has kTokens steps of the
// batch, whose angles its threads make first, each a part of them.
#pragma once

#include "ops/rotary/rotary_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

/// The angle at a position of a pair that turns so far a step, in [-π, π].
PARARNN_DEVICE_FN float rotary_angle(Int position, unsigned long long turns) {
  constexpr float kTurn = 1.4629180792671596e-9f;  // 2π / 2^32
  const unsigned long long turned = static_cast<unsigned long long>(position) * turns;
  return static_cast<float>(static_cast<int>(turned >> 32)) * kTurn;
}

/// kPairs: room for so many pairs, a multiple of kWidth.
template <class Storage, int kWidth, int kPairs>
__global__ void __launch_bounds__(kRotaryThreads)
    rotate_pairs(const __grid_constant__ Rotary problem) {
  constexpr int kTokens = kPairs >= kRotaryThreads ? 1 : kRotaryThreads / kPairs;
  struct alignas(16) Angles {
    float cosines[kTokens][kPairs], sines[kTokens][kPairs];
  };
  PARARNN_SHARED(Angles, angles);
  const Int first = Int(blockIdx.x) * kTokens, tokens = problem.batch * problem.steps;
  const int here = static_cast<int>(tokens - first < kTokens ? tokens - first : kTokens);
  for (int i = threadIdx.x; i < here * problem.pairs; i += kRotaryThreads) {
    const int token = i / problem.pairs, pair = i % problem.pairs;
    const Int row = (first + token) / problem.steps, step = (first + token) % problem.steps;
    const Int position =
        problem
            .positions[row * problem.position_batch_stride + step * problem.position_step_stride];
    const float angle = rotary_angle(position, problem.turns[pair]);
    angles.cosines[token][pair] = cos(angle);
    angles.sines[token][pair] = static_cast<float>(problem.direction) * sin(angle);
  }
  __syncthreads();
  const int packs = problem.pairs / kWidth;
  const int of_queries = problem.tensors[0].heads * packs;
  const int of_token = of_queries + problem.tensors[1].heads * packs;
#pragma unroll 2
  for (int i = threadIdx.x; i < here * of_token; i += kRotaryThreads) {
    const int token = i / of_token, in_token = i % of_token;
    const bool is_key = in_token >= of_queries;
    const RotaryTensor& tensor = problem.tensors[is_key];
    const int of_tensor = is_key ? in_token - of_queries : in_token;
    const int head = of_tensor / packs, pair = of_tensor % packs * kWidth;
    const Int row = (first + token) / problem.steps, step = (first + token) % problem.steps;
    const Storage* x = static_cast<const Storage*>(tensor.x) + row * tensor.batch_stride +
                       step * tensor.step_stride + head * tensor.head_stride + pair;
    const auto a = load_channels<kWidth>(x), b = load_channels<kWidth>(x + problem.pairs);
    Vec<float, kWidth> rotated_a{}, rotated_b{};
    static_for<kWidth>([&](auto j) {
      const float cosine = angles.cosines[token][pair + j], sine = angles.sines[token][pair + j];
      rotated_a[j] = a[j] * cosine - b[j] * sine;
      rotated_b[j] = b[j] * cosine + a[j] * sine;
    });
    Storage* y = static_cast<Storage*>(tensor.y) +
                 ((first + token) * tensor.heads + head) * 2 * problem.pairs + pair;
    store_channels(rotated_a, y);
    store_channels(rotated_b, y + problem.pairs);
  }
}

}  // namespace pararnn::ops
