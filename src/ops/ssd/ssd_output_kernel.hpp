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

#include "ops/ssd/ssd_kernel.hpp"

namespace pararnn::ops {

/// A block has some heads of a chunk, one after the other; a warp has 16 rows, of which a lane has
/// two: pairs of their numbers, as multiply_in_warp says.
template <int kChunk, int kChannels, int kState>
struct SsdOutputTiles {
  static constexpr int kTiles = kChannels / 8;  // of columns
  static constexpr int kThreads = ssd_output_threads(kChunk);
  // Rows of words, so far apart that eight of them lie in different banks.
  static constexpr int kStepWords = kChunk / 2 + 4, kStateWords = kState / 2 + 4;
  using Steps = unsigned[kChannels][kStepWords];     // pairs of steps of each channel
  using States = uint4[kChannels][kStateWords / 4];  // pairs of components of each channel
  using Sums = float[kTiles][4];

  /// Steps from `first` on of a tensor of which `from` has the first, zeros from `steps` on.
  PARARNN_DEVICE_FN static void load_steps(const cuda::BFloat16* from, Int stride, Int steps,
                                           Steps& to) {
    constexpr int kPairs = kChunk / 2;
    for (int n = threadIdx.x; n < kPairs * kTiles; n += kThreads) {
      const int pair = n % kPairs, channel = n / kPairs * 8;
      cuda::Pack<cuda::BFloat16, 8> low{}, high{};
      const cuda::BFloat16* at = from + 2 * pair * stride + channel;
      if (2 * pair < steps) low = cuda::load_pack<cuda::BFloat16, 8>(at);
      if (2 * pair + 1 < steps) high = cuda::load_pack<cuda::BFloat16, 8>(at + stride);
      static_for<8>([&](auto k) {
        to[channel + k][pair] = low.values[k].bits | static_cast<unsigned>(high.values[k].bits)
                                                         << 16;
      });
    }
  }
  PARARNN_DEVICE_FN static void load_states(const cuda::BFloat16* from, States& to) {
    constexpr int kPacks = kState / 8;
    for (int n = threadIdx.x; n < kChannels * kPacks; n += kThreads) {
      to[n / kPacks][n % kPacks] = __ldg(reinterpret_cast<const uint4*>(from) + n);
    }
  }

  /// sums += (two of 16 rows of (Q,N), from `left` on) statesᵀ
  PARARNN_DEVICE_FN static void multiply_states(const cuda::BFloat16* left, const States& states,
                                                Sums& sums) {
    const int lane = threadIdx.x % kWarp;
    const auto words = reinterpret_cast<const unsigned*>(left) + lane / 4 * (kState / 2) + lane % 4;
#pragma unroll 2
    for (int k = 0; k < kState / 16; ++k) {
      unsigned a[4];
      static_for<4>([&](auto part) {
        a[part] = __ldg(words + part % 2 * (8 * kState / 2) + k * 8 + part / 2 * 4);
      });
      static_for<kTiles>([&](auto tile) {
        const auto row = reinterpret_cast<const unsigned*>(&states[tile * 8 + lane / 4][0]);
        const unsigned b[2] = {row[k * 8 + lane % 4], row[k * 8 + lane % 4 + 4]};
        cuda::multiply_in_warp(a, b, sums[tile]);
      });
    }
  }
};

PARARNN_DEVICE_FN float number_of_word(unsigned word, int i) {
  return __uint_as_float(i ? word & 0xffff0000u : word << 16);
}

template <int kChunk, int kChannels, int kState, bool kBackward>
__global__ void __launch_bounds__(ssd_output_threads(kChunk), 2)
    ssd_output(const __grid_constant__ SsdOutput problem) {
  using Tiles = SsdOutputTiles<kChunk, kChannels, kState>;
  using BFloat16 = cuda::BFloat16;
  constexpr int kTiles = Tiles::kTiles;
  PARARNN_SHARED(typename Tiles::Steps, steps);
  PARARNN_SHARED(typename Tiles::States, states);
  const SsdExtent& extent = problem.extent;
  const int heads = extent.heads_of_group();
  const int slices = (heads + kSsdOutputHeads - 1) / kSsdOutputHeads;
  const Int group = blockIdx.x / slices;  // of all chunks
  const int begin = static_cast<int>(blockIdx.x % slices) * kSsdOutputHeads;
  const int end = begin + kSsdOutputHeads < heads ? begin + kSsdOutputHeads : heads;
  const Int chunk_number = group / extent.groups;
  const Int batch = chunk_number / extent.chunks;
  const Int first = chunk_number % extent.chunks * kChunk;
  const Int left = extent.steps - first;  // steps there are
  const int lane = threadIdx.x % kWarp, top = static_cast<int>(threadIdx.x) / kWarp * 16;
  const int pair = lane % 4;
  const int rows[2] = {top + lane / 4, top + lane / 4 + 8};
  const auto matrix_at = [&](const void* of, int columns, Int number) {
    return static_cast<const BFloat16*>(of) + (number * kChunk + top) * columns;
  };
  for (int in_group = begin; in_group < end; ++in_group) {
    const Int matrix = group * heads + in_group;
    const int head = static_cast<int>(matrix % extent.heads);
    const SsdChunk chunk(extent, problem.decays, matrix);
    const auto at = [&](const SsdSteps& of) {
      return static_cast<BFloat16*>(of.data) + batch * of.batch_stride + first * of.step_stride +
             head * of.head_stride;
    };
    const auto load_states = [&](const void* of) {
      Tiles::load_states(static_cast<const BFloat16*>(of) + matrix * (kChannels * kState), states);
    };
    Tiles::load_steps(at(problem.x), problem.x.step_stride, left, steps);
    load_states(kBackward ? problem.entering : problem.states);
    __syncthreads();
    const auto input_at = [&](int row, int channel) {  // of x, or dy
      return number_of_word(steps[channel][row / 2], row % 2);
    };
    typename Tiles::Sums sums{};
    float dots[3][2]{};  // of dy and across, x and arriving, dy and x
    if constexpr (kBackward) {
      Tiles::multiply_states(matrix_at(problem.c, kState, group), states, sums);
      static_for<kTiles>([&](auto tile) {
        static_for<4>([&](auto s) {
          dots[0][s / 2] += sums[tile][s] * input_at(rows[s / 2], tile * 8 + 2 * pair + s % 2);
          sums[tile][s] = 0;
        });
      });
      __syncthreads();  // the states that enter have been read
      load_states(problem.states);
      __syncthreads();
    }
    Tiles::multiply_states(matrix_at(problem.left, kState, group), states, sums);
    if constexpr (kBackward) {
      const BFloat16* x = at(problem.inputs);
      static_for<kTiles>([&](auto tile) {
        static_for<2>([&](auto half) {
          if (rows[half] >= left) return;
          const int channel = tile * 8 + 2 * pair;
          const unsigned word = __ldg(reinterpret_cast<const unsigned*>(
              x + rows[half] * problem.inputs.step_stride + channel));
          static_for<2>([&](auto i) {
            const float input = number_of_word(word, i);
            dots[1][half] += input * sums[tile][half * 2 + i];
            dots[2][half] += input * input_at(rows[half], channel + i);
          });
        });
      });
    }
    float log[2];
    int segment[2] = {};
    static_for<2>([&](auto half) {
      const int row = rows[half];
      const float factor = kBackward ? chunk.to_end(row) : chunk.from_start(row);
      static_for<kTiles>([&](auto tile) {
        sums[tile][half * 2] *= factor;
        sums[tile][half * 2 + 1] *= factor;
      });
      log[half] = chunk.log[row];
      if (chunk.segment) segment[half] = chunk.segment[row];
    });
    // Forward, the columns up to the last row of the warp; backward, those from its first row on.
    const BFloat16* scores = matrix_at(problem.scores, kChunk, group);
    const int from = kBackward ? top / 16 : 0, to = kBackward ? kChunk / 16 : top / 16 + 1;
    for (int k = from; k < to; ++k) {
      unsigned a[4];
      static_for<2>([&](auto part) {  // of 16 columns
        const int column = k * 16 + part * 8 + 2 * pair;
        const auto logs = load_channels<2>(chunk.log + column);
        Vec<float, 2> weights{};
        if constexpr (kBackward) {
          weights[0] = weights[1] = 1;
        } else {
          weights = load_channels<2>(chunk.step + column);
        }
        static_for<2>([&](auto half) {
          const unsigned word = __ldg(
              reinterpret_cast<const unsigned*>(scores + (lane / 4 + half * 8) * kChunk + column));
          float masked[2];
          static_for<2>([&](auto i) {
            const int row = rows[half];
            const bool counts = (kBackward ? column + i >= row : column + i <= row) &&
                                (!chunk.segment || chunk.segment[column + i] == segment[half]);
            const float between = kBackward ? logs[i] - log[half] : log[half] - logs[i];
            masked[i] = counts ? number_of_word(word, i) * decay_of(between) * weights[i] : 0.0f;
          });
          a[part * 2 + half] = cuda::bfloat16_pair(masked[0], masked[1]);
        });
      });
      static_for<kTiles>([&](auto tile) {
        const unsigned* row = steps[tile * 8 + lane / 4];
        const unsigned b[2] = {row[k * 8 + pair], row[k * 8 + pair + 4]};
        cuda::multiply_in_warp(a, b, sums[tile]);
      });
    }
    const float d = problem.d[head];
    BFloat16* y = at(problem.y);
    static_for<2>([&](auto half) {
      const int row = rows[half];
      if constexpr (kBackward) {
        static_for<3>([&](auto dot) {
          dots[dot][half] += __shfl_xor_sync(0xffffffffu, dots[dot][half], 1);
          dots[dot][half] += __shfl_xor_sync(0xffffffffu, dots[dot][half], 2);
        });
        if (pair == 0) {
          problem.of_across[matrix * kChunk + row] = dots[0][half];
          problem.of_arriving[matrix * kChunk + row] = dots[1][half];
          problem.own[matrix * kChunk + row] = dots[2][half];
        }
      }
      if (row >= left) return;
      const float factor = kBackward ? chunk.step[row] : 1.0f;
      static_for<kTiles>([&](auto tile) {
        const int channel = tile * 8 + 2 * pair;
        Vec<float, 2> result{};
        static_for<2>([&](auto i) {
          result[i] = factor * sums[tile][half * 2 + i] + d * input_at(row, channel + i);
        });
        store_channels(result, y + row * problem.y.step_stride + channel);
      });
    });
    __syncthreads();  // what is shared has been read
  }
}

}  // namespace pararnn::ops
