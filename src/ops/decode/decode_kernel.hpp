// A model that reads one token of each row of a batch: what lies between two matrix products is the
// end of the first, so that a block of the model is five kernels.
//
// A kernel multiplies the rows of a batch, at most 16, by rows of weights, which pass
// through the tensor cores' small products: so each weight is read once, whatever the batch. A
// block has 8 · kTiles channels of every group; its warps share the depth of the product, and their
// sums are added up in shared memory. A norm before the product is two parts: its weight is in x,
// and its factor 1 / rms, one a row, follows the product. While a kernel waits for the one before
// it, its first weights are on their way.
//
// Of many rows the products are the library's, which reads x less often; the kernels are then what
// follows them alone (kOwnProduct false).
#pragma once

#include "ops/decode/decode_problem.hpp"
#include "ops/rows_kernel.hpp"
#include "pararnn/core/cell.hpp"

namespace pararnn::ops {

using cuda::BFloat16;

inline constexpr int kDecodeWarps = kDecodeThreads / kWarp;

/// Blocks on a multiprocessor: two, so that the next kernel's wait beside those of this one; all
/// that there is room for where the product was made before.
template <bool kOwnProduct>
inline constexpr int kDecodeBlocks = kOwnProduct ? 2 : 8;

PARARNN_DEVICE_FN void store_bfloat16(void* to, Int at, float x) {
  static_cast<BFloat16*>(to)[at] = cuda::Converted<BFloat16>::from(x);
}
PARARNN_DEVICE_FN float load_bfloat16(const void* from, Int at) {
  return cuda::to_arithmetic(static_cast<const BFloat16*>(from)[at]);
}

/// The sum over a block's threads, in its first one.
PARARNN_DEVICE_FN float sum_in_block(float mine) {
  using Parts = float[kDecodeWarps];
  PARARNN_SHARED(Parts, parts);
  mine = sum_in_warp(mine);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = mine;
  __syncthreads();
  float sum = 0;
  if (threadIdx.x == 0) {
    for (int w = 0; w < kDecodeWarps; ++w) sum += parts[w];
  }
  return sum;
}

/// A block of a product's results: rows of the batch and channels of a head, kChannels by kRows.
template <int kChannels, int kRows>
struct BlockResults {
  static constexpr int kSquares = kChannels < kWarp ? kChannels : kWarp;
  using Inverse = float[kRows];

  const DecodeProduct& p;
  int head, first_channel, first_row;

  /// 1 / rms of the rows of the block, for threads that meet after it.
  PARARNN_DEVICE_FN void find_inverse(Inverse& inverse) const {
    const int lane = threadIdx.x % kWarp;
    for (int i = threadIdx.x / kWarp; i < kRows; i += kDecodeWarps) {
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

  /// Adds a number of each channel of a row up, and stores the sum of kSquares of them, which
  /// neighbouring threads have.
  PARARNN_DEVICE_FN void store_square(const DecodeSquares& squares, int row, int channel,
                                      float mine) const {
    for (int distance = kSquares / 2; distance > 0; distance /= 2) {
      mine += __shfl_xor_sync(0xffffffffu, mine, distance);
    }
    if (threadIdx.x % kSquares == 0 && row < p.batch) {
      const int parts_of_head = squares.parts / p.heads;
      squares.to[Int(row) * squares.parts + head * parts_of_head + channel / kSquares] = mine;
    }
  }
};

/// The product of a block: of kGroups groups, kTiles tiles of channels for each of kColumns columns
/// of warps. The warps of a column share the depth.
template <int kGroups, int kTiles, int kColumns, bool kOwnProduct>
struct BlockProduct : BlockResults<kColumns * kTiles * kDecodeChannels, kDecodeRows> {
  static constexpr int kWeights = kGroups * kTiles;  // tiles of rows of weights
  static constexpr int kChannels = kColumns * kTiles * kDecodeChannels;
  static constexpr int kRows = kDecodeRows;
  static constexpr int kDepthWarps = kDecodeWarps / kColumns;
  // Pieces of the depth on their way to shared memory: some eight loads a thread.
  static constexpr int kStages = kWeights >= 3 ? 2 : 8 / kWeights;
  static constexpr int kTileNumbers = kDecodeRows * kDecodeChannels;
  using Results = BlockResults<kChannels, kRows>;
  using Results::p, Results::head, Results::first_channel, Results::first_row;
  using typename Results::Inverse;

  // A thread's weights are its own all the way; in the end the warps' sums take their place.
  union Memory {
    uint4 weights[kStages][kWeights][kDecodeThreads];
    float sums[kDecodeWarps][kWeights][kTileNumbers];
  };
  struct Inputs {
    uint4 halves[2];  // rows lane / 4, and 8 behind them
  };

  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int column = warp % kColumns, pieces = p.depth / kDecodeDepth;

  PARARNN_DEVICE_FN void send_weights(Memory& memory, int stage, int piece) const {
    if (piece < pieces) {
      static_for<kWeights>([&](auto i) {
        // Beyond the last channel: the last again, whose sums nobody stores.
        const int wanted =
            first_channel + (column * kTiles + i % kTiles) * kDecodeChannels + lane / 4;
        const int channel = wanted < p.channels ? wanted : p.channels - 1;
        const Int row = (Int(head) * kGroups + i / kTiles) * p.channels + channel;
        cuda::copy_async(&memory.weights[stage][i][threadIdx.x],
                         static_cast<const BFloat16*>(p.weight) + row * p.depth +
                             piece * kDecodeDepth + lane % 4 * 8);
      });
    }
    cuda::commit_copies();
  }

  PARARNN_DEVICE_FN void load_inputs(Inputs& x, int piece) const {
    static_for<2>([&](auto half) {
      const int row = first_row + half * 8 + lane / 4;
      x.halves[half] = {};
      if (row >= p.batch || piece >= pieces) return;
      x.halves[half] = *reinterpret_cast<const uint4*>(static_cast<const BFloat16*>(p.x) +
                                                       Int(row) * p.width + head * p.head_stride +
                                                       piece * kDecodeDepth + lane % 4 * 8);
    });
  }

  /// The order of the depth within a piece is the loads': the same for weights and x.
  PARARNN_DEVICE_FN void multiply(const Memory& memory, int stage, const Inputs& x,
                                  float (&sums)[kWeights][4]) const {
    const uint4 low = x.halves[0], high = x.halves[1];
    const unsigned first[4] = {low.x, high.x, low.y, high.y};
    const unsigned second[4] = {low.z, high.z, low.w, high.w};
    static_for<kWeights>([&](auto i) {
      const uint4 weight = memory.weights[stage][i][threadIdx.x];
      const unsigned w_first[2] = {weight.x, weight.y}, w_second[2] = {weight.z, weight.w};
      cuda::multiply_in_warp(first, w_first, sums[i]);
      cuda::multiply_in_warp(second, w_second, sums[i]);
    });
  }

  /// Runs the product, and calls end(row, channel of the head, whether they are there, sums) for
  /// every row and channel of the block: neighbouring threads have neighbouring channels, and a
  /// warp's threads come together.
  template <class F>
  PARARNN_DEVICE_FN void run(const F& end) const {
    PARARNN_SHARED(Memory, memory);
    PARARNN_SHARED(Inverse, inverse);
    const int first = warp / kColumns;
    static_for<kStages>([&](auto s) { send_weights(memory, s, first + s * kDepthWarps); });
    cuda::let_next_kernel_start();
    cuda::wait_for_previous_kernel();
    Inputs x, next;
    load_inputs(next, first);
    this->find_inverse(inverse);
    float sums[kWeights][4] = {};
    int stage = 0;
    for (int piece = first; piece < pieces; piece += kDepthWarps) {
      x = next;
      load_inputs(next, piece + kDepthWarps);
      cuda::wait_for_copies<kStages - 1>();
      multiply(memory, stage, x, sums);
      send_weights(memory, stage, piece + kStages * kDepthWarps);
      stage = stage + 1 < kStages ? stage + 1 : 0;
    }
    cuda::wait_for_copies<0>();
    __syncthreads();  // the memory has been read
    static_for<kWeights>([&](auto i) {
      const int at = lane / 4 * kDecodeChannels + lane % 4 * 2;
      static_for<4>([&](auto s) {
        memory.sums[warp][i][at + s / 2 * 8 * kDecodeChannels + s % 2] = sums[i][s];
      });
    });
    __syncthreads();
    for (int i = threadIdx.x; i < kRows * kChannels; i += kDecodeThreads) {
      const int channel = i % kChannels, row = first_row + i / kChannels;
      const bool there = first_channel + channel < p.channels && row < p.batch;
      const int tile = channel / kDecodeChannels;
      const int at = i / kChannels * kDecodeChannels + channel % kDecodeChannels;
      Vec<float, kGroups> sum{};
      if (there) {
        static_for<kGroups>([&](auto g) {
          for (int w = tile / kTiles; w < kDecodeWarps; w += kColumns) {
            sum[g] += memory.sums[w][g * kTiles + tile % kTiles][at];
          }
          sum[g] *= inverse[row - first_row];
        });
      }
      end(row, first_channel + channel, there, sum);
    }
  }
};

/// The same of a product that was made before.
template <int kGroups, int kTiles, int kColumns>
struct BlockProduct<kGroups, kTiles, kColumns, false>
    : BlockResults<kColumns * kTiles * kDecodeChannels,
                   kDecodeThreads / (kColumns * kTiles * kDecodeChannels)> {
  static constexpr int kChannels = kColumns * kTiles * kDecodeChannels;
  static constexpr int kRows = kDecodeThreads / kChannels;
  using Results = BlockResults<kChannels, kRows>;
  using Results::p, Results::head, Results::first_channel, Results::first_row;
  using typename Results::Inverse;

  template <class F>
  PARARNN_DEVICE_FN void run(const F& end) const {
    PARARNN_SHARED(Inverse, inverse);
    cuda::let_next_kernel_start();
    cuda::wait_for_previous_kernel();
    this->find_inverse(inverse);
    __syncthreads();
    const int channel = first_channel + threadIdx.x % kChannels;
    const int row = first_row + threadIdx.x / kChannels;
    const bool there = channel < p.channels && row < p.batch;
    Vec<float, kGroups> sum{};
    if (there) {
      const float* sums = p.sums + Int(row) * p.sums_row + Int(head) * p.sums_head + channel;
      static_for<kGroups>(
          [&](auto g) { sum[g] = sums[g * p.channels] * inverse[row - first_row]; });
    }
    end(row, channel, there, sum);
  }
};

/// The product of this block. A grid has blocks of channels along x, and along y heads, for each
/// kRows rows of the batch.
template <int kGroups, int kTiles, int kColumns, bool kOwnProduct>
PARARNN_DEVICE_FN BlockProduct<kGroups, kTiles, kColumns, kOwnProduct> product_of_block(
    const DecodeProduct& p) {
  using Product = BlockProduct<kGroups, kTiles, kColumns, kOwnProduct>;
  const int y = static_cast<int>(blockIdx.y);
  return {{p, y % p.heads, static_cast<int>(blockIdx.x) * Product::kChannels,
           y / p.heads * Product::kRows}};
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
  squares = sum_in_block(squares);
  if (threadIdx.x == 0) e.squares[row] = squares;
}

/// The convolution of the next input of a row's channel, which the inputs before it move on for.
PARARNN_DEVICE_FN float convolve(const DecodeTaps& e, int row, int channel, float input) {
  // What is kept for the next steps is what this step sees.
  const float x = cuda::to_arithmetic(cuda::Converted<BFloat16>::from(input));
  float sum = e.weight[(e.taps - 1) * e.width + channel] * x;
  Int before = Int(row) * (e.taps - 1) * e.width + channel;
  for (int k = 0; k + 1 < e.taps; ++k, before += e.width) {
    sum += e.weight[k * e.width + channel] * load_bfloat16(e.before, before);
    store_bfloat16(e.before, before,
                   k + 2 < e.taps ? load_bfloat16(e.before, before + e.width) : x);
  }
  return sum;
}

template <int kTiles, int kColumns, bool kOwnProduct>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kOwnProduct>)
    decode_convolution(const __grid_constant__ DecodeProblem<DecodeConvolution> problem) {
  const DecodeConvolution& e = problem.end;
  const auto product = product_of_block<2, kTiles, kColumns, kOwnProduct>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 2>& sums) {
    if (!there) return;
    const Int at = Int(row) * problem.product.channels + channel;
    store_bfloat16(e.convolved, at, convolve(e.taps, row, channel, sums[0]));
    e.gate[at] = silu(sums[1]);
  });
}

PARARNN_FN int count_bits(unsigned bits) {
  int count = 0;
  for (; bits; bits &= bits - 1) ++count;
  return count;
}

/// kGiven: bits of the cell's inputs that are not projected, which are 1.
template <class C, unsigned kGiven, int kTiles, int kColumns, bool kOwnProduct>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kOwnProduct>)
    decode_cell(const __grid_constant__ DecodeProblem<DecodeCell> problem) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  constexpr int kGroups = U - count_bits(kGiven);
  const DecodeCell& e = problem.end;
  const DecodeProduct& p = problem.product;
  const auto product = product_of_block<kGroups, kTiles, kColumns, kOwnProduct>(p);
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
    product.store_square(e.squares, row, channel_of_head, y * y);
  });
}

template <int kTiles, int kColumns, bool kOwnProduct>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kOwnProduct>)
    decode_residual(const __grid_constant__ DecodeProblem<DecodeResidual> problem) {
  const DecodeResidual& e = problem.end;
  const auto product = product_of_block<1, kTiles, kColumns, kOwnProduct>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 1>& sums) {
    float x = 0;
    if (there) {
      const Int at = Int(row) * problem.product.channels + channel;
      x = e.stream[at] + e.scale[channel] * sums[0];
      e.stream[at] = x;
      store_bfloat16(e.next, at, e.norm_weight[channel] * x);
    }
    product.store_square(e.squares, row, channel, x * x);
  });
}

template <int kTiles, int kColumns, bool kOwnProduct>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kOwnProduct>)
    decode_swiglu(const __grid_constant__ DecodeProblem<DecodeSwiglu> problem) {
  const auto product = product_of_block<2, kTiles, kColumns, kOwnProduct>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 2>& sums) {
    if (!there) return;
    store_bfloat16(problem.end.next, Int(row) * problem.product.channels + channel,
                   silu(sums[0]) * sums[1]);
  });
}

template <int kTiles, int kColumns, bool kOwnProduct>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kOwnProduct>)
    decode_logits(const __grid_constant__ DecodeProblem<DecodeLogits> problem) {
  const auto product = product_of_block<1, kTiles, kColumns, kOwnProduct>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 1>& sums) {
    if (there) problem.end.logits[Int(row) * problem.product.channels + channel] = sums[0];
  });
}

}  // namespace pararnn::ops
