// A lane on the GPU: one chunk of V neighbouring columns, held by one thread; where its numbers
// lie, and the barrier across a cooperative grid.
#pragma once

#include "pararnn/cuda/problem.hpp"
#include "pararnn/cuda/storage.hpp"

namespace pararnn::cuda {

struct Lane {
  Int row, chunk, channel;  // the first of the V channels
  Int begin, end;           // steps of the chunk
};

/// Lanes of V channels in all.
PARARNN_FN Int lane_count(const Chunking& size, int v) {
  return size.batch * size.chunks * (size.channels / v);
}

/// Chunk p of a lane's columns.
PARARNN_FN Lane lane_of_chunk(const Chunking& size, Lane lane, Int p) {
  lane.chunk = p;
  lane.begin = p * size.chunk;
  lane.end = lane.begin + size.chunk < size.steps ? lane.begin + size.chunk : size.steps;
  return lane;
}

PARARNN_FN Lane lane_at(const Chunking& size, int v, Int index) {
  const Int groups = size.channels / v;
  const Lane lane{index / groups / size.chunks, 0, index % groups * v, 0, 0};
  return lane_of_chunk(size, lane, index / groups % size.chunks);
}

/// Columns are numbered b D + d.
PARARNN_FN Int column_index(const Chunking& size, const Lane& lane) {
  return lane.row * size.channels + lane.channel;
}
PARARNN_FN Lane column_at(const Chunking& size, Int index) {
  const Lane lane{index / size.channels, 0, index % size.channels, 0, 0};
  return lane_of_chunk(size, lane, 0);
}

PARARNN_FN Int thread_index() { return static_cast<Int>(blockIdx.x) * blockDim.x + threadIdx.x; }
PARARNN_FN Int thread_count() { return static_cast<Int>(gridDim.x) * blockDim.x; }

PARARNN_FN Int view_offset(const View& view, Int row, Int step, Int channel) {
  const Int offset = row * view.batch_stride + step * view.step_stride + channel;
  const Int between = view.head_stride - view.head_width;
  // A division takes as long as many other operations.
  return between == 0 ? offset : offset + channel / view.head_width * between;
}

/// Offset of component n of N in a boundary array (B,P,N,D).
PARARNN_FN Int boundary_offset(const Chunking& size, const Lane& lane, int components, int n) {
  return ((lane.row * size.chunks + lane.chunk) * components + n) * size.channels + lane.channel;
}

PARARNN_FN Int checkpoint_offset(const Chunking& size, const Lane& lane, Int step, int components,
                                 int n) {
  const Int count = (size.steps + kCheckpointInterval - 1) / kCheckpointInterval;
  const Int row = lane.row * count + step / kCheckpointInterval;
  return (row * components + n) * size.channels + lane.channel;
}

/// V columns of N numbers each: values[v][n].
template <class T, int N, int V>
using Columns = Vec<Vec<T, N>, V>;

/// Loads N numbers of each of V columns, component n at offset(n).
template <int N, int V, class T, class Offset>
PARARNN_FN Columns<T, N, V> load_columns(const void* from, Offset&& offset) {
  Columns<T, N, V> result{};
  static_for<N>([&](auto n) {
    const Vec<T, V> values =
        __builtin_bit_cast(Pack<T, V>,
                           *reinterpret_cast<const typename WordOf<sizeof(Pack<T, V>)>::type*>(
                               static_cast<const T*>(from) + offset(n)))
            .unpack();
    static_for<V>([&](auto v) { result[v][n] = values[v]; });
  });
  return result;
}
template <int N, int V, class T, class Offset>
PARARNN_FN void store_columns(const Columns<T, N, V>& columns, void* to, Offset&& offset) {
  static_for<N>([&](auto n) {
    Vec<T, V> values{};
    static_for<V>([&](auto v) { values[v] = columns[v][n]; });
    store_pack<T, V>(static_cast<T*>(to) + offset(n), Pack<T, V>::of(values));
  });
}

/// Waits until every thread of a cooperative grid has come to barrier number `barrier`, which it
/// counts up. Returns whether any of them came with `mine` set.
__device__ inline bool grid_barrier(Counters* counters, int& barrier, bool mine = false) {
  constexpr unsigned kSet = 1u << 16;  // above the number of blocks
  unsigned arrived = 0;
  mine = __syncthreads_or(mine);
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(&counters->arrived[barrier], mine ? kSet + 1 : 1);
    do {
      arrived = *const_cast<volatile unsigned*>(&counters->arrived[barrier]);
    } while (arrived % kSet < gridDim.x);
    __threadfence();
  }
  ++barrier;
  return __syncthreads_or(arrived >= kSet);
}

/// Pairs of numbers that a thread loads before it compares the first.
inline constexpr int kPairsTogether = 4;

/// Verification number `round`, by a grid: compares the numbers i of one array (B,P,S,D) with the
/// numbers i + S D of another, which lie on the two sides of a boundary between chunks, and marks
/// the columns where they differ by more than passes(i, before, behind) grants. Returns whether the
/// thread found one.
template <int S, class T, class Passes>
__device__ bool mark_failing(const Chunking& size, const void* before, const void* behind,
                             unsigned char* failing, unsigned round, const Passes& passes) {
  const Int row = S * size.channels, count = size.batch * size.chunks * row - row;
  const Int threads = thread_count();
  bool found = false;
  for (Int first = thread_index(); first < count; first += kPairsTogether * threads) {
    T left[kPairsTogether], right[kPairsTogether];
#pragma unroll
    for (int k = 0; k < kPairsTogether; ++k) {
      const Int i = first + k * threads;
      left[k] = i < count ? static_cast<const T*>(before)[i] : T(0);
      right[k] = i < count ? static_cast<const T*>(behind)[i + row] : T(0);
    }
#pragma unroll
    for (int k = 0; k < kPairsTogether; ++k) {
      const Int i = first + k * threads;
      if (i >= count || passes(i, left[k], right[k])) continue;
      const Int chunk = i / row;
      if (chunk % size.chunks == size.chunks - 1) continue;  // two rows of the batch
      failing[chunk / size.chunks * size.channels + i % size.channels] = round;
      found = true;
    }
  }
  return found;
}

/// Makes the counters and the marks of the lane's columns zero; by the first pass over the lanes.
template <int V, class Problem>
PARARNN_FN void reset_verification(const Problem& problem, const Lane& lane) {
  if (problem.size.chunks == 1 || lane.chunk > 0) return;
  const Int column = column_index(problem.size, lane);
  for (int v = 0; v < V; ++v) problem.failing[column + v] = 0;
  if (column == 0) *problem.counters = Counters{};
}

template <class T>
PARARNN_FN bool is_finite(T x) {
  return x - x == T(0);
}

/// |a - b|; 0 for two infinities of a sign or two NaN.
template <class T>
PARARNN_FN T mismatch(T a, T b) {
  return a == b || (is_nan(a) && is_nan(b)) ? T(0) : abs(a - b);
}

/// Keeps the largest mismatch; NaN counts as the largest of all.
__device__ inline void record_mismatch(Counters* counters, double value) {
  const float magnitude = static_cast<float>(value);
  const unsigned bits = magnitude == magnitude ? __float_as_uint(magnitude) : 0x7fffffffu;
  if (bits > *const_cast<volatile unsigned*>(&counters->largest_mismatch_bits)) {
    atomicMax(&counters->largest_mismatch_bits, bits);
  }
}

}  // namespace pararnn::cuda
