// The causal depthwise convolution on a GPU (causal_convolution.hpp): y_t = Σ_k taps_k ⊙
// x_{t-K+1+k}, with x_{-1}, x_{-2}, … in `before`. A thread has a pack of channels and a piece of
// steps, and walks through them with a window of the last K: forward in time for y, backward in
// time for the gradients, each of which is a sum over the window too. Where the row starts anew,
// the window is emptied. With a bias and silu behind, the gradients need the sums before silu once
// more, so the walk is forward in time, with a window of the inputs and one of their gradients.
// What a thread reads is sent to shared memory kSlots steps ahead, as registers hold the taps and
// their gradients.
#pragma once

#include "ops/causal_convolution/causal_convolution_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

/// What a thread has.
struct ConvolutionPiece {
  bool there;  // or nothing
  int channel;
  Int row, begin, end;  // steps

  PARARNN_DEVICE_FN ConvolutionPiece(const ConvolutionExtent& extent, int pack) {
    const int groups = extent.groups_of_channels(pack);
    const Int number = Int(blockIdx.x) / groups * kConvolutionWarps + threadIdx.x / kWarp;
    channel = (static_cast<int>(blockIdx.x % groups) * kWarp + threadIdx.x % kWarp) * pack;
    there = channel < extent.width && number < extent.batch * extent.pieces;
    row = number / extent.pieces;
    begin = number % extent.pieces * extent.piece_steps;
    end = begin + extent.piece_steps < extent.steps ? begin + extent.piece_steps : extent.steps;
  }
};

/// The inputs of step t of a row of the batch, or of the steps before it.
template <class Storage, int kTaps, class Problem>
PARARNN_DEVICE_FN const Storage* input_at(const Problem& problem, Int row, Int t) {
  return t >= 0 ? static_cast<const Storage*>(problem.x) + row * problem.x_batch_stride +
                      t * problem.x_step_stride
                : static_cast<const Storage*>(problem.before) +
                      (row * (kTaps - 1) + kTaps - 1 + t) * problem.extent.width;
}

/// The K vectors that were pushed last, the newest first.
template <int kWidth, int kTaps>
struct Window {
  Vec<float, kWidth> at[kTaps] = {};
  PARARNN_FN void push(const Vec<float, kWidth>& value) {
    static_for<kTaps - 1>([&](auto k) { at[kTaps - 1 - k] = at[kTaps - 2 - k]; });
    at[0] = value;
  }
  PARARNN_FN void clear() {
    static_for<kTaps>([&](auto k) { at[k] = {}; });
  }
};

/// Σ_k taps_k ⊙ window_{K-1-k}
template <int kWidth, int kTaps>
PARARNN_DEVICE_FN Vec<float, kWidth> filter(const Vec<float, kWidth> (&taps)[kTaps],
                                            const Window<kWidth, kTaps>& window) {
  Vec<float, kWidth> sum{};
  static_for<kTaps>([&](auto k) {
    static_for<kWidth>([&](auto i) { sum[i] += taps[k][i] * window.at[kTaps - 1 - k][i]; });
  });
  return sum;
}

template <class P, int kWidth, int kTaps>
PARARNN_DEVICE_FN void load_taps(const void* taps, int width, int channel,
                                 Vec<float, kWidth> (&result)[kTaps]) {
  static_for<kTaps>([&](auto k) {
    result[k] = load_channels<kWidth>(static_cast<const P*>(taps) + k * width + channel);
  });
}

/// The window of the inputs before a piece's first step.
template <class Storage, int kWidth, int kTaps, bool kReset, class Problem>
PARARNN_DEVICE_FN Window<kWidth, kTaps> inputs_before(const Problem& problem,
                                                      const ConvolutionPiece& piece,
                                                      const unsigned char* reset) {
  Window<kWidth, kTaps> x;
  static_for<kTaps - 1>([&](auto j) {
    const Int t = piece.begin - (kTaps - 1) + j;
    if (kReset && t >= 0 && __ldg(reset + t)) x.clear();
    x.push(load_channels<kWidth>(input_at<Storage, kTaps>(problem, piece.row, t) + piece.channel));
  });
  return x;
}

template <class Storage, class P, int kWidth, int kTaps, bool kReset,
          ConvolutionEnd kEnd = ConvolutionEnd::kSum>
__global__ void __launch_bounds__(kConvolutionThreads, forward_blocks(kEnd))
    convolution_forward(const __grid_constant__ ConvolutionForward problem) {
  using Queue = SlotQueue<Storage, kWidth, 1, kConvolutionThreads>;
  PARARNN_SHARED(typename Queue::Memory, memory);
  const ConvolutionPiece piece(problem.extent, kWidth);
  if (!piece.there) return;
  const int width = problem.extent.width;
  Vec<float, kWidth> taps[kTaps];
  load_taps<P>(problem.taps, width, piece.channel, taps);
  const unsigned char* reset = kReset ? problem.reset + piece.row * problem.extent.steps : nullptr;
  Queue queue(memory);
  const Storage* next = input_at<Storage, kTaps>(problem, piece.row, piece.begin) + piece.channel;
  Vec<float, kWidth> bias{};
  if constexpr (kEnd == ConvolutionEnd::kSilu) {
    bias = load_channels<kWidth>(static_cast<const P*>(problem.bias) + piece.channel);
  }
  Int unsent = piece.end - piece.begin;
  const auto send = [&] {
    if (unsent-- > 0) queue.send(0, next);
    next += problem.x_step_stride;
    queue.close();
  };
  static_for<Queue::kAhead>([&](auto) { send(); });
  auto x = inputs_before<Storage, kWidth, kTaps, kReset>(problem, piece, reset);
  Storage* y = static_cast<Storage*>(problem.y) +
               (piece.row * problem.extent.steps + piece.begin) * width + piece.channel;
#pragma unroll 4
  for (Int t = piece.begin; t < piece.end; ++t, y += width) {
    send();
    queue.wait();
    if (kReset && __ldg(reset + t)) x.clear();
    x.push(queue.take(0));
    queue.advance();
    Vec<float, kWidth> result = filter(taps, x);
    static_for<kWidth>([&](auto i) { result[i] += bias[i]; });
    if constexpr (kEnd == ConvolutionEnd::kSilu) {
      static_for<kWidth>([&](auto i) { result[i] = silu(result[i]); });
    }
    store_channels(result, y);
  }
}

/// Adds up what the threads of a block that have the same channels hold, and stores it:
/// (blocks of pieces, kSums, d). All threads of the block call it.
template <int kWidth, int kSums>
PARARNN_DEVICE_FN void store_sums_of_block(const Vec<float, kWidth> (&mine)[kSums],
                                           const ConvolutionExtent& extent, float* to) {
  using Sums = float[kConvolutionWarps][kWarp * kWidth];
  PARARNN_SHARED(Sums, sums);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int groups = extent.groups_of_channels(kWidth), width = extent.width;
  const int first = static_cast<int>(blockIdx.x % groups) * kWarp * kWidth;
  to += Int(blockIdx.x) / groups * kSums * width;
  static_for<kSums>([&](auto k) {
    __syncthreads();  // the sums before have been read
    static_for<kWidth>([&](auto i) { sums[warp][lane * kWidth + i] = mine[k][i]; });
    __syncthreads();
    for (int i = threadIdx.x; i < kWarp * kWidth && first + i < width; i += kConvolutionThreads) {
      float sum = 0;
      for (int w = 0; w < kConvolutionWarps; ++w) sum += sums[w][i];
      to[k * width + first + i] = sum;
    }
  });
}

/// With a window of dy_t, …, dy_{t+K-1}, zeros behind the last step or the next start:
/// dx_t = Σ_k taps_k ⊙ dy_{t+K-1-k} and dtaps_k = Σ_t x_t ⊙ dy_{t+K-1-k}. The first piece of a row
/// has the inputs before it too.
template <class Storage, class P, int kWidth, int kTaps, bool kReset>
__global__ void __launch_bounds__(kConvolutionThreads, backward_blocks(ConvolutionEnd::kSum))
    convolution_backward(const __grid_constant__ ConvolutionBackward problem) {
  using Queue = SlotQueue<Storage, kWidth, 2, kConvolutionThreads>;
  PARARNN_SHARED(typename Queue::Memory, memory);
  const ConvolutionPiece piece(problem.extent, kWidth);
  const Int steps = problem.extent.steps;
  const int width = problem.extent.width;
  Vec<float, kWidth> dtaps[kTaps] = {};
  if (piece.there) {
    Vec<float, kWidth> taps[kTaps];
    load_taps<P>(problem.taps, width, piece.channel, taps);
    const unsigned char* reset = kReset ? problem.reset + piece.row * steps : nullptr;
    const auto at = [&](const auto* of, Int batch_stride, Int step_stride, Int t) {
      return of + piece.row * batch_stride + t * step_stride + piece.channel;
    };
    const auto gradient_at = [&](Int t) {
      return at(static_cast<const Storage*>(problem.dy), problem.dy_batch_stride,
                problem.dy_step_stride, t);
    };
    Queue queue(memory);
    const Storage* next_dy = gradient_at(piece.end - 1);
    const Storage* next_x = at(static_cast<const Storage*>(problem.x), problem.x_batch_stride,
                               problem.x_step_stride, piece.end - 1);
    Int unsent = piece.end - piece.begin;
    const auto send = [&] {
      if (unsent-- > 0) {
        queue.send(0, next_dy);
        queue.send(1, next_x);
      }
      next_dy -= problem.dy_step_stride;
      next_x -= problem.x_step_stride;
      queue.close();
    };
    static_for<Queue::kAhead>([&](auto) { send(); });
    Window<kWidth, kTaps> dy;
    const auto leave = [&](Int t) {
      if (kReset && __ldg(reset + t)) dy.clear();
    };
    static_for<kTaps - 1>([&](auto j) {
      const Int t = piece.end + kTaps - 2 - j;
      if (t >= steps) return;
      dy.push(load_channels<kWidth>(gradient_at(t)));
      leave(t);
    });
    const auto collect = [&](const Vec<float, kWidth>& x) {
      static_for<kTaps>([&](auto k) {
        static_for<kWidth>([&](auto i) { dtaps[k][i] += x[i] * dy.at[kTaps - 1 - k][i]; });
      });
    };
    Storage* dx = static_cast<Storage*>(problem.dx) + piece.row * problem.dx_batch_stride +
                  (piece.end - 1) * problem.dx_step_stride + piece.channel;
#pragma unroll 4
    for (Int t = piece.end - 1; t >= piece.begin; --t, dx -= problem.dx_step_stride) {
      send();
      queue.wait();
      dy.push(queue.take(0));
      store_channels(filter(taps, dy), dx);
      collect(queue.take(1));
      queue.advance();
      leave(t);
    }
    if (piece.begin == 0) {
      static_for<kTaps - 1>([&](auto j) {
        constexpr int kBack = 1 + j;
        dy.push({});
        const auto x = input_at<Storage, kTaps>(problem, piece.row, -kBack) + piece.channel;
        collect(load_channels<kWidth>(x));
        store_channels(filter(taps, dy), static_cast<Storage*>(problem.dbefore) +
                                             (piece.row * (kTaps - 1) + kTaps - 1 - kBack) * width +
                                             piece.channel);
      });
    }
  }
  store_sums_of_block(dtaps, problem.extent, problem.sums);
}

/// The gradients with a bias and silu. With the sums s_t = bias + Σ_k taps_k ⊙ x_{t-K+1+k}:
/// g_t = dy_t ⊙ silu'(s_t), dtaps_k = Σ_t g_t ⊙ x_{t-K+1+k}, dbias = Σ_t g_t, and g_t adds
/// taps_{K-1-j} ⊙ g_t to dx_{t-j}, unless the row has started anew between. The last inputs of a
/// piece have a part of theirs from the K - 1 steps behind it, which the next piece counts for
/// dtaps and dbias.
template <class Storage, class P, int kWidth, int kTaps, bool kReset>
__global__ void __launch_bounds__(kConvolutionThreads, backward_blocks(ConvolutionEnd::kSilu))
    convolution_silu_backward(const __grid_constant__ ConvolutionBackward problem) {
  using Queue = SlotQueue<Storage, kWidth, 2, kConvolutionThreads>;
  PARARNN_SHARED(typename Queue::Memory, memory);
  const ConvolutionPiece piece(problem.extent, kWidth);
  Vec<float, kWidth> sums[kTaps + 1] = {};  // dtaps, dbias
  if (piece.there) {
    constexpr int kBehind = kTaps - 1;
    const Int steps = problem.extent.steps;
    const int width = problem.extent.width;
    Vec<float, kWidth> taps[kTaps];
    load_taps<P>(problem.taps, width, piece.channel, taps);
    const auto bias = load_channels<kWidth>(static_cast<const P*>(problem.bias) + piece.channel);
    const unsigned char* reset = kReset ? problem.reset + piece.row * steps : nullptr;
    Queue queue(memory);
    const Storage* next_x =
        input_at<Storage, kTaps>(problem, piece.row, piece.begin) + piece.channel;
    const Storage* next_dy = static_cast<const Storage*>(problem.dy) +
                             piece.row * problem.dy_batch_stride +
                             piece.begin * problem.dy_step_stride + piece.channel;
    Int unsent = (piece.end + kBehind < steps ? piece.end + kBehind : steps) - piece.begin;
    const auto send = [&] {
      if (unsent-- > 0) {
        queue.send(0, next_x);
        queue.send(1, next_dy);
      }
      next_x += problem.x_step_stride;
      next_dy += problem.dy_step_stride;
      queue.close();
    };
    static_for<Queue::kAhead>([&](auto) { send(); });
    auto x = inputs_before<Storage, kWidth, kTaps, kReset>(problem, piece, reset);
    Window<kWidth, kTaps> dx;   // what is known of dx_t, …, dx_{t-K+1}
    int since_start = kBehind;  // steps since the row started anew, as far as they matter
    // Moves the windows on to step t; `own`: which is known to be one of the piece.
    const auto step = [&](Int t, auto own) {
      send();
      queue.wait();
      dx.push({});
      if (own || t < steps) {
        if (kReset && __ldg(reset + t)) {
          x.clear();
          since_start = 0;
        }
        x.push(queue.take(0));
        const Vec<float, kWidth> sum = filter(taps, x), dy = queue.take(1);
        Vec<float, kWidth> g{};
        static_for<kWidth>([&](auto i) { g[i] = dy[i] * silu_slope(sum[i] + bias[i]); });
        static_for<kTaps>([&](auto j) {
          if (kReset && j > since_start) return;
          static_for<kWidth>([&](auto i) { dx.at[j][i] += taps[kTaps - 1 - j][i] * g[i]; });
        });
        if (own || t < piece.end) {
          static_for<kTaps>([&](auto k) {
            static_for<kWidth>([&](auto i) { sums[k][i] += g[i] * x.at[kTaps - 1 - k][i]; });
          });
          static_for<kWidth>([&](auto i) { sums[kTaps][i] += g[i]; });
        }
        if (kReset && since_start < kBehind) ++since_start;
      }
      queue.advance();
    };
    // dx_{t-K+1} is complete behind step t. The first K - 1 are of the piece before this one, or of
    // the inputs before the row.
    Int t = piece.begin;
    Storage* dbefore =
        static_cast<Storage*>(problem.dbefore) + piece.row * kBehind * width + piece.channel;
#pragma unroll 1
    for (; t < piece.begin + kBehind; ++t, dbefore += width) {
      step(t, Index<0>{});
      if (piece.begin == 0) store_channels(dx.at[kBehind], dbefore);
    }
    Storage* to = static_cast<Storage*>(problem.dx) + piece.row * problem.dx_batch_stride +
                  piece.begin * problem.dx_step_stride + piece.channel;
#pragma unroll 4
    for (; t < piece.end; ++t, to += problem.dx_step_stride) {
      step(t, Index<1>{});
      store_channels(dx.at[kBehind], to);
    }
#pragma unroll 1
    for (; t < piece.end + kBehind; ++t, to += problem.dx_step_stride) {
      step(t, Index<0>{});
      store_channels(dx.at[kBehind], to);
    }
  }
  store_sums_of_block(sums, problem.extent, problem.sums);
}

}  // namespace pararnn::ops
