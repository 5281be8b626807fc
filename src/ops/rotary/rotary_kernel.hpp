// Rotary position embedding on a GPU (rotary.hpp), of queries and keys at once. How far a pair has
// turned at a position is a product of integers modulo a whole turn, so it is exact at any
// position; sine and cosine are then those of an angle in [-π, π]. A block has kTokens steps of the
// batch, whose angles its threads make first, each a part of them. A thread stores where it has
// loaded, so that tensors may be turned in their place.
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

/// Neighbouring channels of memory that this kernel also writes.
template <int N, class Storage>
PARARNN_DEVICE_FN Vec<float, N> load_written_channels(const Storage* from) {
  using Pack = cuda::Pack<Storage, N>;
  using Word = typename cuda::WordOf<sizeof(Pack)>::type;
  return __builtin_bit_cast(Pack, *reinterpret_cast<const Word*>(from)).unpack();
}

PARARNN_DEVICE_FN Int offset_of(const RotaryPlace& place, Int row, Int step, int head) {
  return row * place.batch_stride + step * place.step_stride + head * place.head_stride;
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
  const int of_both = of_queries + problem.tensors[1].heads * packs;
  const int of_token = of_both + problem.tensors[2].heads * packs;
#pragma unroll 2
  for (int i = threadIdx.x; i < here * of_token; i += kRotaryThreads) {
    const int token = i / of_token, in_token = i % of_token;
    const bool turns = in_token < of_both;
    const int which = in_token < of_queries ? 0 : turns ? 1 : 2;
    const int of_tensor = in_token - (which == 0 ? 0 : which == 1 ? of_queries : of_both);
    const RotaryTensor& tensor = problem.tensors[which];
    const int head = of_tensor / packs, pair = of_tensor % packs * kWidth;
    const Int row = (first + token) / problem.steps, step = (first + token) % problem.steps;
    const Storage* x = static_cast<const Storage*>(tensor.from.data) +
                       offset_of(tensor.from, row, step, head) + pair;
    const auto a = load_written_channels<kWidth>(x),
               b = load_written_channels<kWidth>(x + problem.pairs);
    Vec<float, kWidth> rotated_a{}, rotated_b{};
    static_for<kWidth>([&](auto j) {
      const float cosine = turns ? angles.cosines[token][pair + j] : 1;
      const float sine = turns ? angles.sines[token][pair + j] : 0;
      rotated_a[j] = a[j] * cosine - b[j] * sine;
      rotated_b[j] = b[j] * cosine + a[j] * sine;
    });
    Storage* y =
        static_cast<Storage*>(tensor.to.data) + offset_of(tensor.to, row, step, head) + pair;
    store_channels(rotated_a, y);
    store_channels(rotated_b, y + problem.pairs);
  }
}

}  // namespace pararnn::ops
