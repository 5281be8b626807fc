// A lane on the GPU: one chunk of V neighbouring columns, held by one thread; and where its numbers
// lie.
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

PARARNN_DEVICE_FN Int thread_index() {
  return static_cast<Int>(blockIdx.x) * blockDim.x + threadIdx.x;
}
PARARNN_DEVICE_FN Int thread_count() { return static_cast<Int>(gridDim.x) * blockDim.x; }

PARARNN_FN Int view_offset(const TensorView& view, Int row, Int step, Int channel) {
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

template <class T>
PARARNN_FN T not_a_number() {
  return T(__uint_as_float(0x7fffffffu));
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

}  // namespace pararnn::cuda
