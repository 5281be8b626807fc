// The gradient of the scores of the state-space recurrence on a GPU (ssd.hpp), by the products of
// tensor cores in bfloat16: that of the masked scores, dy_i x_jᵀ for each head, is made in
// registers, and what ScoresBackward (ssd_parts.hpp) has of it is summed up there.
#pragma once

#include "ops/ssd/ssd_tiles_kernel.hpp"

namespace pararnn::ops {

/// What the threads of a block share: x of a head and of the next, dy of the block's rows, their
/// scores, and what the rows of each warp add to columns, of a head and of the one before.
template <unsigned kChunk, unsigned kChannels>
struct SsdScoresShared {
  static constexpr unsigned kWarps = ssd_scores_warps(kChunk);
  SharedMatrix<kChunk, kChannels> x[2];
  SharedMatrix<16, kChannels> dy[kWarps];
  SharedMatrix<16, kChunk> scores[kWarps];
  SharedDecays<kChunk> decays[2];
  float columns[2][kWarps][kChunk];
};

/// The sum of each of 8 numbers over the lanes whose rows differ: lane / 4 says which of them a
/// lane has in the end.
PARARNN_DEVICE_FN float sum_over_rows(unsigned lane, Vec<float, 8> numbers) {
  static_for<3>([&](auto level) {
    constexpr int kHalf = 4 >> level, kDistance = 16 >> level;
    const bool upper = lane & kDistance;
    static_for<kHalf>([&](auto k) {
      const float keep = upper ? numbers[k + kHalf] : numbers[k];
      const float give = upper ? numbers[k] : numbers[k + kHalf];
      numbers[k] = keep + __shfl_xor_sync(0xffffffffu, give, kDistance);
    });
  });
  return numbers[0];
}

/// A block has some rows of the scores of a group, 16 a warp, and goes through its heads. Of two
/// blocks for 128 rows each has as much below the diagonal.
template <int kChunk, int kChannels>
__global__ void __launch_bounds__(ssd_scores_threads(kChunk), 3)
    ssd_scores_backward(const __grid_constant__ SsdScoresBackward problem) {
  using BFloat16 = cuda::BFloat16;
  using Shared = SsdScoresShared<kChunk, kChannels>;
  static_assert(sizeof(Shared) == ssd_scores_bytes(kChunk, kChannels));
  constexpr unsigned kWarps = Shared::kWarps, kThreads = ssd_scores_threads(kChunk),
                     kDepth = kChannels / 32;
  constexpr int kBlocks = ssd_scores_blocks(kChunk);
  PARARNN_DYNAMIC_SHARED(Shared, shared);
  const unsigned part = blockIdx.x % kBlocks;
  const SsdGroup group(problem.extent, problem.decays, kChunk, blockIdx.x / kBlocks);
  const unsigned thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const unsigned top = (kBlocks == 1 ? warp : warp * 2 + (warp + part) % 2) * 16;
  const unsigned pair = lane % 4 * 2;  // a lane's first column of a tile
  const unsigned rows[2] = {top + lane / 4, top + lane / 4 + 8};
  int from[2];  // the first column that counts, of a lane's rows; the last is the row's own
  static_for<2>([&](auto half) {
    from[half] = SsdConnected(group.segment, kChunk, static_cast<int>(rows[half])).first;
  });
  const auto send = [&](int in_group) {
    const int turn = in_group % 2;
    shared.x[turn].template send<kThreads>(thread, group.at(problem.x, in_group),
                                           problem.x.step_stride, group.steps);
    shared.dy[warp].template send<kWarp>(
        lane, group.at(problem.dy, in_group) + top * problem.dy.step_stride, problem.dy.step_stride,
        group.steps - static_cast<int>(top));
    shared.decays[turn].template send<kThreads>(thread, problem.decays, group.matrix(in_group));
    cuda::commit_copies();
  };
  // The columns of a head, once all warps have added theirs.
  const auto store_columns = [&](int in_group) {
    float* columns =
        problem.columns + (part * problem.extent.matrices() + group.matrix(in_group)) * kChunk;
    for (unsigned column = thread; column < kChunk; column += kThreads) {
      float sum = 0;
      for (unsigned w = 0; w < kWarps; ++w) sum += shared.columns[in_group % 2][w][column];
      columns[column] = sum;
    }
  };

  const BFloat16* scores =
      static_cast<const BFloat16*>(problem.scores) + (group.number * kChunk + top) * kChunk;
  shared.scores[warp].template send<kWarp>(lane, scores, kChunk, 16);
  send(0);
  // Columns behind a warp's rows are never written.
  for (unsigned n = thread; n < 2 * kWarps * kChunk; n += kThreads) {
    shared.columns[n / kChunk / kWarps][n / kChunk % kWarps][n % kChunk] = 0;
  }
  float dscores[kChunk / 8][4]{};
#pragma unroll 1
  for (int in_group = 0; in_group < group.heads; ++in_group) {
    const int turn = in_group % 2;
    const SharedDecays<kChunk>& decays = shared.decays[turn];
    uint4 dy[kDepth][2];
    cuda::wait_for_copies<0>();
    __syncthreads();  // what was sent is there, and that of the head before has been read
    static_for<kDepth>(
        [&](auto depth) { shared.dy[warp].rows_of_warp(lane, 0, depth, dy[depth]); });
    __syncwarp();
    if (in_group + 1 < group.heads) send(in_group + 1);
    if (in_group > 0) store_columns(in_group - 1);
    float log[2], row_sums[2]{}, own[2]{}, product_of_own[2]{};
    static_for<2>([&](auto half) { log[half] = decays.binary_log(rows[half]); });
    static_for<kChunk / 32>([&](auto block) {
      if (block * 32 > top) return;
      Vec<float, 8> column_sums{};
      const auto add = [&](bool all) {
        static_for<4>([&](auto tile) {
          const unsigned number = block * 4 + tile;
          if (!all && number * 8 > top + 15) return;
          const unsigned column = number * 8 + pair;
          float products[4]{};
          static_for<kDepth>([&](auto depth) {
            multiply_32(dy[depth], shared.x[turn].rows_of_tile(lane, number, depth), products);
          });
          const auto logs = decays.template binary_logs<2>(column);
          const auto steps = decays.template steps<2>(column);
          static_for<2>([&](auto half) {
            const unsigned words = shared.scores[warp].word(half * 8 + lane / 4, column);
            static_for<2>([&](auto i) {
              const int step = static_cast<int>(column) + i, row = static_cast<int>(rows[half]);
              const float weighted = products[half * 2 + i] * special_exp2(log[half] - logs[i]);
              const bool counts = all || (step >= from[half] && step <= row);
              const float through = counts ? weighted : 0.0f;
              const float product = through * number_of_word(words, i);
              dscores[number][half * 2 + i] += through * steps[i];
              const bool is_own = !all && step == row;
              if (is_own) {
                own[half] = product;
                product_of_own[half] = products[half * 2 + i];
              }
              const float before = is_own ? 0.0f : product;
              column_sums[tile * 2 + i] += before;
              row_sums[half] += before * steps[i];
            });
          });
        });
      };
      if (block == top / 32 || problem.decays.segment) {
        add(false);
      } else {
        add(true);
      }
      shared.columns[turn][warp][block * 32 + lane / 8 * 8 + pair + lane / 4 % 2] =
          sum_over_rows(lane, column_sums);
    });
    static_for<2>([&](auto half) {
      const float sum = sum_over_columns(row_sums[half]);
      const Int to = group.matrix(in_group) * kChunk + rows[half];
      if (pair == 0) problem.rows[to] = sum;
      if (pair == rows[half] % 8 / 2 * 2) {
        problem.own[to] = own[half];
        problem.products[to] = product_of_own[half];
      }
    });
  }
  __syncthreads();
  store_columns(group.heads - 1);
  BFloat16* dscores_of_group =
      static_cast<BFloat16*>(problem.dscores) + group.number * kChunk * kChunk;
  static_for<2>([&](auto half) {
    BFloat16* row = dscores_of_group + rows[half] * kChunk + neighbours_from(lane);
    static_for<kChunk / 16>([&](auto tiles) {
      const auto word = [&](int tile) {
        return cuda::bfloat16_pair(dscores[tile][half * 2], dscores[tile][half * 2 + 1]);
      };
      *reinterpret_cast<uint2*>(row + tiles * 16) =
          neighbours_of(lane, {word(tiles * 2), word(tiles * 2 + 1)});
    });
  });
}

}  // namespace pararnn::ops
