// A model that reads one token of each row of a batch: what lies between two matrix products is the
// end of the first, so that a block of the model is five kernels.
//
// A kernel multiplies the rows of a batch, at most 64 at a time, by rows of weights, which pass
// through the tensor cores' small products: so each weight is read once, whatever the batch. A
// block has 8 · kTiles channels of every group; its warps share the depth of the product, and their
// sums are added up in shared memory. A norm before the product is two parts: its weight is in x,
// and its factor 1 / rms, one a row, follows the product. While a kernel waits for the one before
// it, its first weights are on their way.
#pragma once

#include "ops/decode/decode_problem.hpp"
#include "ops/rows_kernel.hpp"
#include "pararnn/core/cell.hpp"

namespace pararnn::ops {

using cuda::BFloat16;

inline constexpr int kDecodeWarps = kDecodeThreads / kWarp;

/// Blocks on a multiprocessor: with few rows two, so that the next kernel's wait beside those of
/// this one.
template <int kRowTiles>
inline constexpr int kDecodeBlocks = kRowTiles == 1 ? 2 : 1;

PARARNN_DEVICE_FN void store_bfloat16(void* to, Int at, float x) {
  static_cast<BFloat16*>(to)[at] = cuda::Converted<BFloat16>::from(x);
}
PARARNN_DEVICE_FN float load_bfloat16(const void* from, Int at) {
  return cuda::to_arithmetic(static_cast<const BFloat16*>(from)[at]);
}

PARARNN_DEVICE_FN float sum_in_warp(float mine) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    mine += __shfl_xor_sync(0xffffffffu, mine, distance);
  }
  return mine;
}

/// The product of a block: kGroups groups of kTiles tiles of channels, kRowTiles tiles of rows.
template <int kGroups, int kTiles, int kRowTiles>
struct BlockProduct {
  static constexpr int kWeights = kGroups * kTiles;  // tiles of rows of weights
  static constexpr int kSums = kWeights * kRowTiles;
  static constexpr int kChannels = kTiles * kDecodeChannels, kRows = kRowTiles * kDecodeRows;
  // Pieces of the depth on their way together: some four loads of weights a thread.
  static constexpr int kStage = kRowTiles >= 4 || kWeights >= 4 ? 1 : 4 / kWeights;
  static constexpr int kTileNumbers = kDecodeRows * kDecodeChannels;

  struct Piece {
    uint4 weight[kWeights];
    uint4 x[kRowTiles][2];
  };
  using Sums = float[kSums][kTileNumbers];
  static constexpr int kRound = kSums < 4 ? kSums : 4;  // tiles that are added up together
  using Parts = float[kDecodeWarps][kRound * kTileNumbers];
  using Inverse = float[kRows];

  const DecodeProduct& p;
  int head, first_channel, first_row;  // of the block
  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int pieces = p.depth / kDecodeDepth;

  PARARNN_DEVICE_FN void load_weights(Piece (&stage)[kStage], int piece) const {
    static_for<kStage>([&](auto s) {
      const int at = piece + s * kDecodeWarps;
      if (at >= pieces) return;
      static_for<kWeights>([&](auto i) {
        // Beyond the last channel: the last again, whose sums nobody stores.
        const int wanted = first_channel + i % kTiles * kDecodeChannels + lane / 4;
        const int channel = wanted < p.channels ? wanted : p.channels - 1;
        const Int row = (Int(head) * kGroups + i / kTiles) * p.channels + channel;
        stage[s].weight[i] = cuda::load_constant(
            reinterpret_cast<const uint4*>(static_cast<const BFloat16*>(p.weight) + row * p.depth +
                                           at * kDecodeDepth + lane % 4 * 8));
      });
    });
  }
  PARARNN_DEVICE_FN void load_x(Piece (&stage)[kStage], int piece) const {
    static_for<kStage>([&](auto s) {
      const int at = piece + s * kDecodeWarps;
      if (at >= pieces) return;
      static_for<kRowTiles>([&](auto t) {
        static_for<2>([&](auto half) {
          const int row = first_row + t * kDecodeRows + half * 8 + lane / 4;
          stage[s].x[t][half] = {};
          if (row >= p.batch) return;
          stage[s].x[t][half] = *reinterpret_cast<const uint4*>(
              static_cast<const BFloat16*>(p.x) + (Int(row) * p.heads + head) * p.depth +
              at * kDecodeDepth + lane % 4 * 8);
        });
      });
    });
  }

  /// The order of the depth within a piece is the loads': the same for weights and x.
  PARARNN_DEVICE_FN void multiply(const Piece (&stage)[kStage], int piece,
                                  float (&sums)[kSums][4]) const {
    static_for<kStage>([&](auto s) {
      if (piece + s * kDecodeWarps >= pieces) return;
      static_for<kRowTiles>([&](auto t) {
        const uint4 low = stage[s].x[t][0], high = stage[s].x[t][1];
        const unsigned first[4] = {low.x, high.x, low.y, high.y};
        const unsigned second[4] = {low.z, high.z, low.w, high.w};
        static_for<kWeights>([&](auto i) {
          const uint4 weight = stage[s].weight[i];
          const unsigned w_first[2] = {weight.x, weight.y}, w_second[2] = {weight.z, weight.w};
          cuda::multiply_in_warp(first, w_first, sums[i * kRowTiles + t]);
          cuda::multiply_in_warp(second, w_second, sums[i * kRowTiles + t]);
        });
      });
    });
  }

  /// 1 / rms of the rows of the block; waits for what was stored before, not for this.
  PARARNN_DEVICE_FN void find_inverse(Inverse& inverse) const {
    for (int i = warp; i < kRows; i += kDecodeWarps) {
      const int row = first_row + i;
      if (row >= p.batch) break;
      float mine = 0;
      for (int part = lane; part < p.parts; part += kWarp) {
        mine += p.squares[Int(row) * p.parts + part];
      }
      mine = sum_in_warp(mine);
      if (lane == 0) inverse[i] = p.squares ? 1 / sqrt(mine / p.width + p.epsilon) : 1.0f;
    }
  }

  /// Runs the product, and calls end(row, channel of the head, whether they are there, sums) for
  /// every row and channel of the block: neighbouring threads have neighbouring channels, and a
  /// warp's threads come together.
  template <class F>
  PARARNN_DEVICE_FN void run(const F& end) const {
    Piece now[kStage] = {}, next[kStage] = {};
    float sums[kSums][4] = {};
    load_weights(next, warp);
    cuda::let_next_kernel_start();
    cuda::wait_for_previous_kernel();
    load_x(next, warp);
    PARARNN_SHARED(Inverse, inverse);
    find_inverse(inverse);
    for (int piece = warp; piece < pieces; piece += kStage * kDecodeWarps) {
      static_for<kStage>([&](auto s) { now[s] = next[s]; });
      load_weights(next, piece + kStage * kDecodeWarps);
      load_x(next, piece + kStage * kDecodeWarps);
      multiply(now, piece, sums);
    }
    PARARNN_SHARED(Sums, added);
    PARARNN_SHARED(Parts, parts);
    static_for<(kSums + kRound - 1) / kRound>([&](auto round) {
      static_for<kRound>([&](auto r) {
        constexpr int kSum = decltype(round)::value * kRound + decltype(r)::value;
        if constexpr (kSum < kSums) {
          const int at = lane / 4 * kDecodeChannels + lane % 4 * 2 + r * kTileNumbers;
          static_for<4>([&](auto s) {
            parts[warp][at + s / 2 * 8 * kDecodeChannels + s % 2] = sums[kSum][s];
          });
        }
      });
      __syncthreads();
      for (int i = threadIdx.x; i < kRound * kTileNumbers; i += kDecodeThreads) {
        const int sum_of = round * kRound + i / kTileNumbers;
        if (sum_of >= kSums) break;
        float sum = 0;
        for (int w = 0; w < kDecodeWarps; ++w) sum += parts[w][i];
        added[sum_of][i % kTileNumbers] = sum;
      }
      __syncthreads();
    });
    for (int i = threadIdx.x; i < kRows * kChannels; i += kDecodeThreads) {
      const int channel = i % kChannels, row = i / kChannels;
      const int at = row % kDecodeRows * kDecodeChannels + channel % kDecodeChannels;
      const int tile = channel / kDecodeChannels * kRowTiles + row / kDecodeRows;
      const bool there = first_channel + channel < p.channels && first_row + row < p.batch;
      Vec<float, kGroups> sum{};
      static_for<kGroups>([&](auto g) {
        sum[g] = there ? inverse[row] * added[g * kTiles * kRowTiles + tile][at] : 0.0f;
      });
      end(first_row + row, first_channel + channel, there, sum);
    }
  }

  /// Adds a number of each channel of a row up, and stores the block's part of the row's sum.
  PARARNN_DEVICE_FN void store_square(const DecodeSquares& squares, int row, float mine) const {
    for (int distance = kChannels / 2; distance > 0; distance /= 2) {
      mine += __shfl_xor_sync(0xffffffffu, mine, distance);
    }
    if (threadIdx.x % kChannels == 0 && row < p.batch) {
      squares.to[Int(row) * squares.parts + Int(head) * gridDim.x + blockIdx.x] = mine;
    }
  }
};

/// The product of this block. A grid has blocks of channels along x, and along y heads, for each
/// kRows rows of the batch.
template <int kGroups, int kTiles, int kRowTiles>
PARARNN_DEVICE_FN BlockProduct<kGroups, kTiles, kRowTiles> product_of_block(
    const DecodeProduct& p) {
  using Product = BlockProduct<kGroups, kTiles, kRowTiles>;
  const int y = static_cast<int>(blockIdx.y);
  return {p, y % p.heads, static_cast<int>(blockIdx.x) * Product::kChannels,
          y / p.heads * Product::kRows};
}

__global__ void __launch_bounds__(kDecodeThreads)
    decode_embedding(const __grid_constant__ DecodeEmbedding e) {
  cuda::let_next_kernel_start();
  cuda::wait_for_previous_kernel();
  const Int row = blockIdx.x, from = e.tokens[row] * e.width, to = row * e.width;
  float squares = 0;
  for (int i = threadIdx.x; i < e.width; i += kDecodeThreads) {
    const float x = load_bfloat16(e.embedding, from + i);
    e.stream[to + i] = x;
    store_bfloat16(e.next, to + i, e.norm_weight[i] * x);
    squares += x * x;
  }
  using Parts = float[kDecodeWarps];
  PARARNN_SHARED(Parts, parts);
  squares = sum_in_warp(squares);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = squares;
  __syncthreads();
  if (threadIdx.x != 0) return;
  float sum = 0;
  for (int w = 0; w < kDecodeWarps; ++w) sum += parts[w];
  e.squares[row] = sum;
}

template <int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kRowTiles>)
    decode_convolution(const __grid_constant__ DecodeProblem<DecodeConvolution> problem) {
  const DecodeConvolution& e = problem.end;
  const auto product = product_of_block<2, kTiles, kRowTiles>(problem.product);
  const int width = problem.product.channels;
  product.run([&](int row, int channel, bool there, const Vec<float, 2>& sums) {
    if (!there) return;
    const Int at = Int(row) * width + channel;
    // What is kept for the next steps is what this step sees.
    const float x = cuda::to_arithmetic(cuda::Converted<BFloat16>::from(sums[0]));
    float sum = e.weight[(e.taps - 1) * width + channel] * x;
    Int before = Int(row) * (e.taps - 1) * width + channel;
    for (int k = 0; k + 1 < e.taps; ++k, before += width) {
      sum += e.weight[k * width + channel] * load_bfloat16(e.before, before);
      store_bfloat16(e.before, before,
                     k + 2 < e.taps ? load_bfloat16(e.before, before + width) : x);
    }
    store_bfloat16(e.convolved, at, sum);
    e.gate[at] = silu(sums[1]);
  });
}

PARARNN_FN int count_bits(unsigned bits) {
  int count = 0;
  for (; bits; bits &= bits - 1) ++count;
  return count;
}

/// kGiven: bits of the cell's inputs that are not projected, which are 1.
template <class C, unsigned kGiven, int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kRowTiles>)
    decode_cell(const __grid_constant__ DecodeProblem<DecodeCell> problem) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  constexpr int kGroups = U - count_bits(kGiven);
  const DecodeCell& e = problem.end;
  const DecodeProduct& p = problem.product;
  const auto product = product_of_block<kGroups, kTiles, kRowTiles>(p);
  const int width = p.heads * p.channels, head = product.head;
  product.run([&](int row, int channel_of_head, bool there, const Vec<float, kGroups>& sums) {
    const int channel = head * p.channels + channel_of_head;
    float y = 0;
    if (there) {
      Vec<float, U> u{};
      static_for<U>([&]<int I>(Index<I> n) {
        if constexpr ((kGiven >> I & 1) != 0) {
          u[n] = 1;
        } else {
          constexpr int kGroup = I - count_bits(kGiven & ((1u << I) - 1));
          u[n] =
              sums[kGroup] + e.bias[(Int(head) * kGroups + kGroup) * p.channels + channel_of_head];
        }
      });
      Vec<float, P> w{};
      static_for<P>([&](auto n) { w[n] = e.recurrent[n * width + channel]; });
      Vec<float, S> h{};
      float* state = e.state + Int(row) * S * width + channel;
      static_for<S>([&](auto s) { h[s] = state[s * width]; });
      h = next_state<C>(h, u, w);
      static_for<S>([&](auto s) { state[s * width] = h[s]; });
      y = h[0];
      const Int at = Int(row) * width + channel;
      store_bfloat16(e.next, at, y * e.norm_weight[channel] * e.gate[at]);
    }
    product.store_square(e.squares, row, y * y);
  });
}

template <int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kRowTiles>)
    decode_residual(const __grid_constant__ DecodeProblem<DecodeResidual> problem) {
  const DecodeResidual& e = problem.end;
  const auto product = product_of_block<1, kTiles, kRowTiles>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 1>& sums) {
    float x = 0;
    if (there) {
      const Int at = Int(row) * problem.product.channels + channel;
      x = e.stream[at] + e.scale[channel] * sums[0];
      e.stream[at] = x;
      store_bfloat16(e.next, at, e.norm_weight[channel] * x);
    }
    product.store_square(e.squares, row, x * x);
  });
}

template <int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kRowTiles>)
    decode_swiglu(const __grid_constant__ DecodeProblem<DecodeSwiglu> problem) {
  const auto product = product_of_block<2, kTiles, kRowTiles>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 2>& sums) {
    if (!there) return;
    store_bfloat16(problem.end.next, Int(row) * problem.product.channels + channel,
                   silu(sums[0]) * sums[1]);
  });
}

template <int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kRowTiles>)
    decode_logits(const __grid_constant__ DecodeProblem<DecodeLogits> problem) {
  const auto product = product_of_block<1, kTiles, kRowTiles>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 1>& sums) {
    if (there) problem.end.logits[Int(row) * problem.product.channels + channel] = sums[0];
  });
}

}  // namespace pararnn::ops
