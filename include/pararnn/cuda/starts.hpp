// Rows of which a part starts anew (sequences.hpp), as a lane walks over them. It looks up once to
// which sequence its first step belongs, and from there on knows before which step the next start
// is. Flags are looked at, a block of steps at a time. And whether the offsets are right, which the
// host cannot know without waiting for the device.
#pragma once

#include "pararnn/cuda/lanes.hpp"

namespace pararnn::cuda {

/// Of a lane that walks forward over sequences.
struct PlaceForward {
  int sequence = 0;  // of the next step
  int end = 0;       // of it
};

/// Of a lane that walks backward over them.
struct PlaceBackward {
  int sequence = 0;  // of the step before
  int begin = -1;    // of it
  int before = -1;   // where the sequence before it begins, which may be empty; -1 if there is none
};

/// Flags of the steps [begin, begin + K) of a row, as bits.
template <int K>
PARARNN_FN unsigned reset_bits(const Sequences& sequences, const Chunking& size, Int row,
                               Int begin) {
  const unsigned char* flags = sequences.reset + row * size.steps + begin;
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < K; ++i) {
    if (begin + i < size.steps && flags[i]) bits |= 1u << i;
  }
  return bits;
}

/// Whether a thread of so many finds that the offsets are none.
PARARNN_FN bool finds_wrong_offsets(const Sequences& sequences, const Chunking& size, Int thread,
                                    Int threads) {
  if (!sequences.offsets) return false;
  bool wrong = sequences.offsets[0] != 0 || sequences.offsets[sequences.count] != size.steps;
#pragma unroll 4
  for (Int n = thread; n < sequences.count; n += threads) {
    wrong = wrong | (sequences.offsets[n] > sequences.offsets[n + 1]);
  }
  return wrong;
}

/// By a block.
__device__ inline bool offsets_are_wrong(const Sequences& sequences, const Chunking& size) {
  return __syncthreads_or(finds_wrong_offsets(sequences, size, threadIdx.x, blockDim.x));
}

/// By a grid: makes the numbers of a contiguous array NaN.
template <class T>
__device__ void fill_with_nan(void* numbers, Int count) {
#pragma unroll 1
  for (Int i = thread_index(); i < count; i += thread_count()) {
    static_cast<T*>(numbers)[i] = not_a_number<T>();
  }
}

/// The same of a tensor of so many components.
template <class Storage>
__device__ void fill_with_nan(const TensorView& view, int components, const Chunking& size) {
  const Pack<Storage, 1> unknown = Pack<Storage, 1>::of({not_a_number<Arithmetic<Storage>>()});
#pragma unroll 1
  for (Int i = thread_index(); i < size.batch * size.steps * size.channels; i += thread_count()) {
    const Int step = i / size.channels;
    Storage* at = static_cast<Storage*>(view.data) +
                  view_offset(view, step / size.steps, step % size.steps, i % size.channels);
    for (int n = 0; n < components; ++n) {
      store_pack<Storage, 1>(at + n * view.component_stride, unknown);
    }
  }
}

}  // namespace pararnn::cuda
