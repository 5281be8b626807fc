// What include/pararnn/cuda/primitives.hpp and CUDA itself give a kernel, for g++ on the host,
// where the threads of a GPU are fibers. PARARNN_CUDA_PRIMITIVES names this file. Kernels that
// include it come after all headers of the C++ library, some of whose names it redefines.
#pragma once

#include "fibers.hpp"
#include "pararnn/cpu/storage.hpp"

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__

#define PARARNN_DEVICE_FN inline
#define PARARNN_SHARED(Type, name) Type& name = ::pararnn::fibers::shared_variable<Type>([] {})
#define PARARNN_DYNAMIC_SHARED(Type, name) PARARNN_SHARED(Type, name)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

#define threadIdx (::pararnn::fibers::machine.current->thread)
#define blockIdx (::pararnn::fibers::machine.current->block->index)
#define blockDim (::pararnn::fibers::machine.size)
#define gridDim (::pararnn::fibers::machine.blocks)

inline int __syncthreads_or(int mine) {
  auto& meeting = pararnn::fibers::machine.current->block->meeting;
  const unsigned times = meeting.times;
  meeting.come(mine != 0);
  pararnn::fibers::machine.wait_for(meeting, times);
  return meeting.result;
}
inline void __syncthreads() { __syncthreads_or(0); }
inline void __threadfence() {}

/// read(lane): what each thread of the warp holds, while read_all runs.
template <class T, class F>
void read_in_warp(const T& value, const F& read_all) {
  auto& self = *pararnn::fibers::machine.current;
  auto& warp = self.warp();
  const auto meet = [&] {
    const unsigned times = warp.meeting.times;
    warp.meeting.come();
    pararnn::fibers::machine.wait_for(warp.meeting, times);
  };
  static_assert(sizeof value <= sizeof warp.values[0]);
  std::memcpy(warp.values[self.number % pararnn::cuda::kWarp], &value, sizeof value);
  meet();
  read_all([&](int lane) {
    T other;
    std::memcpy(&other, warp.values[lane], sizeof other);
    return other;
  });
  meet();
}
/// What the thread of the warp whose number is from(own number) holds; its own if there is none.
template <class T, class From>
T from_thread_of_warp(T value, const From& from) {
  const int other = from(pararnn::fibers::machine.current->number % pararnn::cuda::kWarp);
  read_in_warp(value, [&](const auto& read) {
    if (other >= 0) value = read(other);
  });
  return value;
}
template <class T>
T __shfl_up_sync(unsigned, T value, int distance) {
  return from_thread_of_warp(value, [&](int lane) { return lane - distance; });
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return from_thread_of_warp(value, [&](int lane) { return lane ^ mask; });
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return from_thread_of_warp(value, [&](int) { return from; });
}

inline void __syncwarp() {
  read_in_warp(0, [](const auto&) {});
}

inline unsigned atomicAdd(unsigned* to, unsigned value) {
  const unsigned before = *to;
  *to += value;
  return before;
}
inline unsigned atomicMax(unsigned* to, unsigned value) {
  const unsigned before = *to;
  *to = std::max(before, value);
  return before;
}
template <class T>
T __ldg(const T* from) {
  return *from;
}
constexpr float __uint_as_float(unsigned bits) { return __builtin_bit_cast(float, bits); }
constexpr unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }

/// Byte i of the result is byte number (selector >> 4 i) % 8 of b:a.
constexpr unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const unsigned long long both = (static_cast<unsigned long long>(b) << 32) | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = (selector >> (4 * i)) & 7u;
    result |= static_cast<unsigned>((both >> (8 * byte)) & 0xffu) << (8 * i);
  }
  return result;
}

namespace pararnn {

/// Of core/math_device.hpp.
inline float special_exp2(float x) { return __builtin_exp2f(x); }

}  // namespace pararnn

namespace pararnn::cuda {

PARARNN_FN float float_of_half(unsigned short bits) { return cpu::from_float16(bits); }
PARARNN_FN unsigned short half_of_float(float x) { return cpu::to_float16(x); }
PARARNN_FN unsigned short bfloat16_of_float(float x) { return cpu::to_bfloat16(x); }
PARARNN_FN unsigned bfloat16_pair(float low, float high) {
  return cpu::to_bfloat16(low) | static_cast<unsigned>(cpu::to_bfloat16(high)) << 16;
}

template <class Word>
void copy_async(Word* to, const void* from) {
  fibers::send({to, from, sizeof(Word)});
}
inline void commit_copies() { fibers::machine.current->sent.emplace_back(); }
template <int N>
void wait_for_copies() {
  fibers::wait_for_sent(N);
}
inline void let_others_run() {
  fibers::machine.current->spins = true;
  fibers::machine.pause();
}

inline void let_next_kernel_start() {}
inline void wait_for_previous_kernel() {}

template <int kBlocks>
void come_to_cluster() {
  if (kBlocks > 1) fibers::machine.come_to_cluster(kBlocks);
}
template <int kBlocks>
void wait_for_cluster() {
  if (kBlocks > 1) {
    fibers::machine.wait_for_cluster(kBlocks);
  } else {
    __syncthreads();
  }
}
template <int kBlocks>
void store_in_cluster(float* mine, int rank, float first, float second) {
  auto* to = static_cast<float*>(fibers::machine.in_cluster(mine, kBlocks, rank));
  to[0] = first;
  to[1] = second;
}

/// Numbers 2 n, 2 n + 1 of a word of two bfloat16.
inline float number_of_pair(unsigned word, int i) {
  return __uint_as_float(i ? word & 0xffff0000u : word << 16);
}
inline void multiply_in_warp(const unsigned (&a)[4], const unsigned (&b)[2], float (&sums)[4]) {
  struct Words {
    unsigned a[4], b[2];
  };
  const int lane = fibers::machine.current->number % kWarp;
  read_in_warp(Words{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, [&](const auto& read) {
    for (int n = 0; n < 4; ++n) {  // what lane n of each row has
      const Words row = read(lane / 4 * 4 + n);
      for (int s = 0; s < 4; ++s) {
        const Words column = read((lane % 4 * 2 + s % 2) * 4 + n);
        for (int half = 0; half < 2; ++half) {
          for (int i = 0; i < 2; ++i) {
            sums[s] +=
                number_of_pair(row.a[half * 2 + s / 2], i) * number_of_pair(column.b[half], i);
          }
        }
      }
    }
  });
}

inline uint4 load_transposed(const uint4* row) {
  unsigned word[4]{};
  const int lane = fibers::machine.current->number % kWarp;
  read_in_warp(*row, [&](const auto& read) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int i = 0; i < 2; ++i) {
        const uint4 numbers = read(8 * matrix + lane % 4 * 2 + i);
        unsigned short number = 0;
        std::memcpy(&number, reinterpret_cast<const char*>(&numbers) + lane / 4 * 2, 2);
        word[matrix] |= static_cast<unsigned>(number) << (16 * i);
      }
    }
  });
  return {word[0], word[1], word[2], word[3]};
}

}  // namespace pararnn::cuda
