// The causal depthwise convolution on a GPU (causal_convolution.hpp), of rows that do not start
// anew: y_t = Σ_k taps_k ⊙ x_{t-K+1+k}, with x_{-1}, x_{-2}, … in `before`. A thread has a pack of
// channels and a piece of kPieceSteps steps, through which a window of K of them slides. Steps are
// loaded kAhead at a time, before the first of them is stored: the compiler cannot know that a
// store changes nothing that is to be loaded.
#pragma once

#include "ops/causal_convolution/causal_convolution_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

/// Steps that the backward pass loads before it stores the first of them: the compiler cannot know
/// that a store changes nothing that is to be loaded. Forward, registers for more threads are worth
/// more.
inline constexpr int kAhead = 4;

/// Calls f(row of the batch, piece, channel) for what this thread has.
template <int kWidth, class Problem, class F>
PARARNN_DEVICE_FN void for_each_piece(const Problem& problem, const F& f) {
  const int packs = problem.width / kWidth;
  const Int pieces = pieces_of(problem.steps);
  const Int count = problem.batch * pieces * packs;
  for (Int i = Int(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += Int(gridDim.x) * blockDim.x) {
    f(i / packs / pieces, i / packs % pieces, static_cast<int>(i % packs) * kWidth);
  }
}

/// The inputs of a row of the batch, those before it included.
template <class Storage, int kWidth, int kTaps, class Problem>
PARARNN_DEVICE_FN Vec<float, kWidth> input_at(const Problem& problem, Int row, Int t, int channel) {
  const Storage* from = t >= 0 ? static_cast<const Storage*>(problem.x) +
                                     row * problem.x_batch_stride + t * problem.x_step_stride
                               : static_cast<const Storage*>(problem.before) +
                                     (row * (kTaps - 1) + kTaps - 1 + t) * problem.width;
  return load_channels<kWidth>(from + channel);
}

/// A window of K vectors, of which the last is the newest.
template <int kWidth, int kTaps>
struct Window {
  Vec<float, kWidth> at[kTaps] = {};
  PARARNN_FN void push(const Vec<float, kWidth>& value) {
    static_for<kTaps - 1>([&](auto k) { at[k] = at[k + 1]; });
    at[kTaps - 1] = value;
  }
};

template <class P, int kWidth, int kTaps>
PARARNN_DEVICE_FN void load_taps(const void* taps, int width, int channel,
                                 Vec<float, kWidth> (&result)[kTaps]) {
  static_for<kTaps>([&](auto k) {
    result[k] = load_channels<kWidth>(static_cast<const P*>(taps) + k * width + channel);
  });
}

template <class Storage, class P, int kWidth, int kTaps>
__global__ void __launch_bounds__(kRowBlockThreads)
    convolution_forward(const __grid_constant__ ConvolutionForward problem) {
  for_each_piece<kWidth>(problem, [&](Int row, Int piece, int channel) {
    Vec<float, kWidth> taps[kTaps];
    load_taps<P>(problem.taps, problem.width, channel, taps);
    const Int begin = piece * kPieceSteps;
    const Int end = begin + kPieceSteps < problem.steps ? begin + kPieceSteps : problem.steps;
    Window<kWidth, kTaps> x;
    static_for<kTaps - 1>([&](auto k) {
      x.push(input_at<Storage, kWidth, kTaps>(problem, row, begin - (kTaps - 1) + k, channel));
    });
    Storage* y =
        static_cast<Storage*>(problem.y) + (row * problem.steps + begin) * problem.width + channel;
#pragma unroll 4
    for (Int t = begin; t < end; ++t, y += problem.width) {
      x.push(input_at<Storage, kWidth, kTaps>(problem, row, t, channel));
      Vec<float, kWidth> sum{};
      static_for<kTaps>(
          [&](auto k) { static_for<kWidth>([&](auto i) { sum[i] += taps[k][i] * x.at[k][i]; }); });
      store_channels(sum, y);
    }
  });
}

/// dx_t = Σ_k taps_k ⊙ dy_{t+K-1-k}, zeros behind the last step; the first piece of a row has the
/// inputs before it too. dtaps_k = Σ_t dy_t ⊙ x_{t-K+1+k}.
template <class Storage, class P, int kWidth, int kTaps>
__global__ void __launch_bounds__(kRowBlockThreads)
    convolution_backward(const __grid_constant__ ConvolutionBackward problem) {
  for_each_piece<kWidth>(problem, [&](Int row, Int piece, int channel) {
    Vec<float, kWidth> taps[kTaps], dtaps[kTaps] = {};
    load_taps<P>(problem.taps, problem.width, channel, taps);
    const Int begin = piece * kPieceSteps;
    const Int end = begin + kPieceSteps < problem.steps ? begin + kPieceSteps : problem.steps;
    const auto gradient_at = [&](Int t) {
      if (t < 0 || t >= problem.steps) return Vec<float, kWidth>{};
      return load_channels<kWidth>(static_cast<const Storage*>(problem.dy) +
                                   row * problem.dy_batch_stride + t * problem.dy_step_stride +
                                   channel);
    };
    const auto store = [&](const Vec<float, kWidth>& dx, Int t) {
      Storage* to =
          t >= 0 ? static_cast<Storage*>(problem.dx) + (row * problem.steps + t) * problem.width
                 : static_cast<Storage*>(problem.dbefore) +
                       (row * (kTaps - 1) + kTaps - 1 + t) * problem.width;
      store_channels(dx, to + channel);
    };
    Window<kWidth, kTaps> dy;  // of the steps t to t + K - 1
    const auto gradient_of_input = [&] {
      Vec<float, kWidth> dx{};
      static_for<kTaps>([&](auto k) {
        static_for<kWidth>([&](auto i) { dx[i] += taps[k][i] * dy.at[kTaps - 1 - k][i]; });
      });
      return dx;
    };
    const Int first = piece == 0 ? 1 - kTaps : begin;
    static_for<kTaps - 1>([&](auto k) { dy.push(gradient_at(first + k)); });
    for (Int t = first; t < begin; ++t) {
      dy.push(gradient_at(t + kTaps - 1));
      store(gradient_of_input(), t);
    }
    Window<kWidth, kTaps> x;
    static_for<kTaps - 1>([&](auto k) {
      x.push(input_at<Storage, kWidth, kTaps>(problem, row, begin - (kTaps - 1) + k, channel));
    });
    for (Int t = begin; t < end; t += kAhead) {
      Vec<float, kWidth> dy_coming[kAhead], x_coming[kAhead] = {};
      static_for<kAhead>([&](auto j) {
        dy_coming[j] = gradient_at(t + j + kTaps - 1);
        if (t + j < end) {
          x_coming[j] = input_at<Storage, kWidth, kTaps>(problem, row, t + j, channel);
        }
      });
      static_for<kAhead>([&](auto j) {
        dy.push(dy_coming[j]);
        x.push(x_coming[j]);
        if (t + j >= end) return;
        store(gradient_of_input(), t + j);
        static_for<kTaps>([&](auto k) {
          static_for<kWidth>([&](auto i) { dtaps[k][i] += dy.at[0][i] * x.at[k][i]; });
        });
      });
    }
    float* to =
        problem.dtaps + (row * pieces_of(problem.steps) + piece) * kTaps * problem.width + channel;
    static_for<kTaps>([&](auto k) {
      static_for<kWidth>([&](auto i) { to[k * problem.width + i] = dtaps[k][i]; });
    });
  });
}

}  // namespace pararnn::ops
