// One step, for decoding: no chunks, no ring, every number once. A thread keeps the weights of its
// channels and takes several rows, a few of them at a time, so that their loads are on their way
// together.
#pragma once

#include "pararnn/cuda/forward_pass.hpp"

namespace pararnn::cuda {

/// Rows that a thread loads before it computes.
template <class T>
inline constexpr int kRowsTogether = 16 / sizeof(T);

/// Blocks on a multiprocessor that a step leaves registers for. The compiler's own choice spills.
inline constexpr int kDecodeBlocks = 8;

/// Steps = 1, no checkpoints. The grid's first dimension is over channels, the second over rows.
template <class C, class Storage, int V>
__global__ void __launch_bounds__(kThreadsPerBlock, kDecodeBlocks)
    decode_step(const __grid_constant__ ForwardProblem problem) {
  using F = Forward<C, Storage, V>;
  constexpr int kTogether = kRowsTogether<typename F::T>;
  const Int stride = static_cast<Int>(gridDim.y) * blockDim.y;
  Lane lane{static_cast<Int>(blockIdx.y) * blockDim.y + threadIdx.y, 0, thread_index() * V, 0, 1};
  if (lane.row >= problem.size.batch || lane.channel >= problem.size.channels) return;
  const F forward(problem, lane);
  const Storage* u =
      static_cast<const Storage*>(problem.u.data) + view_offset(problem.u, 0, 0, lane.channel);
  Storage* y = static_cast<Storage*>(problem.y.data) + view_offset(problem.y, 0, 0, lane.channel);
  for (Int first = lane.row; first < problem.size.batch; first += kTogether * stride) {
    typename F::Inputs inputs[kTogether];
    typename F::State h[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      // Beyond the last row: the first again, which nobody keeps.
      lane.row = first + i * stride < problem.size.batch ? first + i * stride : first;
      inputs[i] = forward.load_inputs(u + lane.row * problem.u.batch_stride);
      h[i] = forward.initial_state();
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      lane.row = first + i * stride;
      if (lane.row >= problem.size.batch) break;
      const Vec<typename F::T, V> out = forward.take_step(inputs[i], h[i]);
      store_pack<Storage, V>(y + lane.row * problem.y.batch_stride, Pack<Storage, V>::of(out));
      forward.store_end(h[i]);
    }
  }
}

}  // namespace pararnn::cuda
