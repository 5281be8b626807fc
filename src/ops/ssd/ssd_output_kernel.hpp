// The state-space recurrence on a GPU (ssd.hpp): from scores and states to y, and from their
// gradients to dx, each in one kernel, by the products of tensor cores in bfloat16. The masked
// scores are made in registers, where a product takes them, and are never stored: what moves is
// x, y and the states.
//
//   forward,  of row i:  y_i  = decay from the start (c_i hᵀ) + Σ_{j≤i} scores_ij w_ij dt_j x_j
//                               + d x_i
//   backward, of row j:  dx_j = dt_j (decay to the end (b_j gᵀ) + Σ_{i≥j} scores_ji w_ij dy_i)
//                               + d dy_j
//
// with w_ij the decay from j to i; backward, the scores are those of b and c, and g is the gradient
// of what the chunk adds to the state.
#pragma once

#include "ops/ssd/ssd_tiles_kernel.hpp"

namespace pararnn::ops {

/// What the threads of a block share: each warp's rows of c, or of b; of a head x and the states,
/// or dy and the gradient of what is added to the states; the decays, of this head and the next.
template <unsigned kChunk, unsigned kChannels, unsigned kState, bool kBackward>
struct SsdOutputShared {
  SharedMatrix<16, kState> left[kChunk / 16];
  SharedMatrix<kChunk, kChannels> steps;
  SharedMatrix<kChannels, kState> states;
  SharedDecays<kChunk> decays[2];
};
/// Backward the states that enter too, and x.
template <unsigned kChunk, unsigned kChannels, unsigned kState>
struct SsdOutputShared<kChunk, kChannels, kState, true>
    : SsdOutputShared<kChunk, kChannels, kState, false> {
  SharedMatrix<kChannels, kState> entering;
  SharedMatrix<kChunk, kChannels> inputs;
};

/// sums += rows of (Q,N), of which load(block, ...) gives a lane's numbers, times statesᵀ
template <unsigned kChannels, unsigned kState, class Load>
PARARNN_DEVICE_FN void multiply_states(unsigned lane, const Load& load,
                                       SharedMatrix<kChannels, kState>& states,
                                       float (&sums)[kChannels / 8][4]) {
#pragma unroll 1
  for (unsigned block = 0; block < kState / 32; ++block) {
    uint4 rows[2];
    load(block, rows);
    static_for<kChannels / 8>(
        [&](auto tile) { multiply_32(rows, states.rows_of_tile(lane, tile, block), sums[tile]); });
  }
}

/// Of a lane's rows, its part of the sums over channels of what is in `steps` times `others`.
template <unsigned kChunk, unsigned kChannels>
PARARNN_DEVICE_FN void multiply_rows(unsigned lane, unsigned top,
                                     SharedMatrix<kChunk, kChannels>& steps,
                                     const float (&others)[kChannels / 8][4], float (&dots)[2]) {
  static_for<kChannels / 8>([&](auto tile) {
    static_for<2>([&](auto half) {
      const unsigned word = steps.word(top + half * 8 + lane / 4, tile * 8 + lane % 4 * 2);
      static_for<2>(
          [&](auto i) { dots[half] += number_of_word(word, i) * others[tile][half * 2 + i]; });
    });
  });
}

/// A block has some heads of a chunk, one after the other; while it computes with some of what it
/// shares, the rest comes for the next product or the next head.
template <int kChunk, int kChannels, int kState, bool kBackward>
__global__ void __launch_bounds__(ssd_output_threads(kChunk), 2)
    ssd_output(const __grid_constant__ SsdOutput problem) {
  using BFloat16 = cuda::BFloat16;
  using Shared = SsdOutputShared<kChunk, kChannels, kState, kBackward>;
  static_assert(sizeof(Shared) == ssd_output_bytes(kChunk, kChannels, kState, kBackward));
  constexpr unsigned kThreads = ssd_output_threads(kChunk), kTiles = kChannels / 8;
  PARARNN_DYNAMIC_SHARED(Shared, shared);
  const int slices = ssd_output_slices(problem.extent);
  const SsdGroup group(problem.extent, problem.decays, kChunk, blockIdx.x / slices);
  const int begin = static_cast<int>(blockIdx.x % slices) * kSsdOutputHeads;
  const int end = begin + kSsdOutputHeads < group.heads ? begin + kSsdOutputHeads : group.heads;
  const unsigned thread = threadIdx.x, lane = thread % kWarp, top = thread / kWarp * 16;
  const unsigned pair = lane % 4 * 2;  // a lane's first column of a tile
  const unsigned rows[2] = {top + lane / 4, top + lane / 4 + 8};
  // Of a lane's rows the steps whose scores count, and whether a state reaches them.
  int from[2], to[2];
  bool reached[2];
  static_for<2>([&](auto half) {
    const int row = static_cast<int>(rows[half]);
    const SsdConnected connected(group.segment, kChunk, row);
    from[half] = kBackward ? row : connected.first;
    to[half] = kBackward ? connected.last : row;
    reached[half] =
        kBackward ? connected.last == kChunk - 1 : !group.segment || group.segment[row] == 0;
  });
  const auto top_of = [&](const void* of, unsigned columns) {
    return static_cast<const BFloat16*>(of) + (group.number * kChunk + top) * columns;
  };
  const auto send_states = [&](const void* of, int in_group, auto& states) {
    const Int offset = group.matrix(in_group) * (kChannels * kState);
    states.template send<kThreads>(thread, static_cast<const BFloat16*>(of) + offset, kState,
                                   kChannels);
  };
  const auto send_steps = [&](const SsdSteps& of, int in_group, auto& steps) {
    steps.template send<kThreads>(thread, group.at(of, in_group), of.step_stride, group.steps);
  };
  // What the product with states needs, and what the one with scores.
  const auto send_for_states = [&](int in_group) {
    shared.decays[in_group % 2].template send<kThreads>(thread, problem.decays,
                                                        group.matrix(in_group));
    send_states(problem.states, in_group, shared.states);
    if constexpr (kBackward) send_steps(problem.inputs, in_group, shared.inputs);
    cuda::commit_copies();
  };
  const auto send_for_scores = [&](int in_group) {
    send_steps(problem.x, in_group, shared.steps);
    if constexpr (kBackward) send_states(problem.entering, in_group, shared.entering);
    cuda::commit_copies();
  };
  auto& left_rows = shared.left[top / 16];
  left_rows.template send<kWarp>(lane, top_of(problem.left, kState), kState, 16);
  send_for_states(begin);
  send_for_scores(begin);
  cuda::wait_for_copies<1>();
  __syncthreads();
#pragma unroll 1
  for (int in_group = begin; in_group < end; ++in_group) {
    const SharedDecays<kChunk>& decays = shared.decays[in_group % 2];
    // Sums over the channels of a row, of which each of four lanes has some.
    const auto store_dots = [&](const float(&dots)[2], float* of_steps) {
      static_for<2>([&](auto half) {
        const float dot = sum_over_columns(dots[half]);
        if (pair == 0) of_steps[group.matrix(in_group) * kChunk + rows[half]] = dot;
      });
    };
    float sums[kTiles][4]{};
    multiply_states(
        lane,
        [&](unsigned block, uint4(&result)[2]) { left_rows.rows_of_warp(lane, 0, block, result); },
        shared.states, sums);
    // Forward, the columns up to the last row of the warp; backward, those from its first row on.
    const unsigned begin_block = kBackward ? top / 32 : 0;
    const unsigned end_block = kBackward ? kChunk / 32 : top / 32 + 1;
    const BFloat16* scores = top_of(problem.scores, kChunk);
    uint4 coming[2];  // a lane's numbers of what is multiplied next
    load_rows(lane, scores, kChunk, begin_block, coming);
    if constexpr (kBackward) {
      float of_arriving[2]{};
      multiply_rows(lane, top, shared.inputs, sums, of_arriving);
      store_dots(of_arriving, problem.of_arriving);
    }
    cuda::wait_for_copies<0>();
    __syncthreads();  // the steps are there, and the states have been read
    if (in_group + 1 < end) send_for_states(in_group + 1);

    float log[2];
    static_for<2>([&](auto half) {
      log[half] = decays.binary_log(rows[half]);
      const float through = kBackward ? decays.binary_log(kChunk - 1) - log[half] : log[half];
      const float factor = reached[half] ? special_exp2(through) : 0.0f;
      static_for<kTiles>([&](auto tile) {
        sums[tile][half * 2] *= factor;
        sums[tile][half * 2 + 1] *= factor;
      });
    });
#pragma unroll 1
    for (unsigned block = begin_block; block < end_block; ++block) {
      uint4 words[2], masked[2];
      static_for<2>([&](auto half) { words[half] = coming[half]; });
      if (block + 1 < end_block) load_rows(lane, scores, kChunk, block + 1, coming);
      const unsigned column = block * 32 + lane % 4 * 8;
      const auto logs = decays.template binary_logs<8>(column);
      const auto mask = [&](bool all) {
        const auto weights = decays.template steps<8>(column);
        static_for<2>([&](auto half) {
          const unsigned of_row[4] = {words[half].x, words[half].y, words[half].z, words[half].w};
          unsigned pairs[4];
          static_for<4>([&](auto word) {
            float numbers[2];
            static_for<2>([&](auto i) {
              const int k = word * 2 + i, number = static_cast<int>(column) + k;
              const float between = kBackward ? logs[k] - log[half] : log[half] - logs[k];
              const float score = number_of_word(of_row[word], i) * special_exp2(between);
              const bool counts = all || (number >= from[half] && number <= to[half]);
              numbers[i] = counts ? (kBackward ? score : score * weights[k]) : 0.0f;
            });
            pairs[word] = cuda::bfloat16_pair(numbers[0], numbers[1]);
          });
          masked[half] = {pairs[0], pairs[1], pairs[2], pairs[3]};
        });
      };
      if (block == top / 32 || problem.decays.segment) {
        mask(false);
      } else {
        mask(true);
      }
      static_for<kTiles>([&](auto tile) {
        multiply_32(masked, shared.steps.columns_of_tile(lane, tile, block), sums[tile]);
      });
    }

    const BFloat16* c = top_of(problem.c, kState);
    if constexpr (kBackward) load_rows(lane, c, kState, 0, coming);
    const float d = problem.d[group.first_head + in_group];
    BFloat16* y = group.at(problem.y, in_group) + neighbours_from(lane);
    static_for<2>([&](auto half) {
      const unsigned row = rows[half];
      const float factor = kBackward ? decays.step[row] : 1.0f;
      static_for<kTiles / 2>([&](auto tiles) {
        unsigned words[2];
        static_for<2>([&](auto which) {
          const int tile = tiles * 2 + which;
          const unsigned input = shared.steps.word(row, tile * 8 + pair);  // x, or dy
          float numbers[2];
          static_for<2>([&](auto i) {
            numbers[i] = factor * sums[tile][half * 2 + i] + d * number_of_word(input, i);
          });
          words[which] = cuda::bfloat16_pair(numbers[0], numbers[1]);
        });
        const uint2 numbers = neighbours_of(lane, {words[0], words[1]});
        if (static_cast<int>(row) < group.steps) {
          *reinterpret_cast<uint2*>(y + row * problem.y.step_stride + tiles * 16) = numbers;
        }
      });
    });

    if constexpr (kBackward) {
      float across[kTiles][4]{}, of_across[2]{};
      multiply_states(
          lane,
          [&](unsigned block, uint4(&result)[2]) {
            static_for<2>([&](auto half) { result[half] = coming[half]; });
            if (block + 1 < kState / 32) load_rows(lane, c, kState, block + 1, coming);
          },
          shared.entering, across);
      multiply_rows(lane, top, shared.steps, across, of_across);
      store_dots(of_across, problem.of_across);
    }
    if (in_group + 1 < end) {
      cuda::wait_for_copies<0>();
      __syncthreads();  // the next states are there, and the steps have been read
      send_for_scores(in_group + 1);
    }
  }
}

}  // namespace pararnn::ops
