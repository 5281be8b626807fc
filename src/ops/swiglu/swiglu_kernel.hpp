// SwiGLU on a GPU (swiglu.hpp): y = silu(gate) ⊙ value, gate and value the halves of each row of x.
#pragma once

#include "ops/rows_kernel.hpp"
#include "ops/swiglu/swiglu_problem.hpp"

namespace pararnn::ops {

/// Calls f(row, channel) for every pack of kWidth channels that this thread has.
template <int kWidth, class Problem, class F>
PARARNN_DEVICE_FN void for_each_pack(const Problem& problem, const F& f) {
  const int packs = problem.width / kWidth;
  for (Int i = Int(blockIdx.x) * blockDim.x + threadIdx.x; i < problem.rows * packs;
       i += Int(gridDim.x) * blockDim.x) {
    f(i / packs, static_cast<int>(i % packs) * kWidth);
  }
}

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kRowBlockThreads)
    swiglu_forward(const __grid_constant__ SwigluForward problem) {
  for_each_pack<kWidth>(problem, [&](Int row, int channel) {
    const Storage* x = static_cast<const Storage*>(problem.x) + row * problem.x_stride + channel;
    auto gate = load_channels<kWidth>(x);
    const auto value = load_channels<kWidth>(x + problem.width);
    static_for<kWidth>([&](auto i) { gate[i] = silu(gate[i]) * value[i]; });
    store_channels(gate, static_cast<Storage*>(problem.y) + row * problem.width + channel);
  });
}

template <class Storage, int kWidth>
__global__ void __launch_bounds__(kRowBlockThreads)
    swiglu_backward(const __grid_constant__ SwigluBackward problem) {
  for_each_pack<kWidth>(problem, [&](Int row, int channel) {
    const Storage* x = static_cast<const Storage*>(problem.x) + row * problem.x_stride + channel;
    auto gate = load_channels<kWidth>(x);
    auto value = load_channels<kWidth>(x + problem.width);
    const auto dy = load_channels<kWidth>(static_cast<const Storage*>(problem.dy) +
                                          row * problem.dy_stride + channel);
    static_for<kWidth>([&](auto i) {
      const float dvalue = dy[i] * silu(gate[i]);
      gate[i] = dy[i] * value[i] * silu_slope(gate[i]);
      value[i] = dvalue;
    });
    Storage* dx = static_cast<Storage*>(problem.dx) + row * 2 * problem.width + channel;
    store_channels(gate, dx);
    store_channels(value, dx + problem.width);
  });
}

}  // namespace pararnn::ops
