// Cross-entropy with z-loss on a GPU, from the logits to their gradient in one pass over memory:
// a block reads a row, holds as much of it in registers as it can, and writes the gradient over it.
// What it does not hold it reads again, from the caches unless rows are very long.
//
//   Z = log Σ exp(x),  loss = Z - x[target] + z_loss Z²,
//   d loss / dx = softmax(x) (1 + 2 z_loss Z) - 1[target]
#pragma once

#include "ops/cross_entropy/cross_entropy_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

/// N neighbouring numbers as words: what is kept so takes no more registers than bytes.
template <class Storage, int N>
struct PackedNumbers {
  static constexpr int kPair = N == 1 ? 1 : 2;
  using Word = typename cuda::WordOf<N * sizeof(Storage)>::type;
  struct Pairs {
    cuda::Pack<Storage, kPair> data[N / kPair];
  };
  Word word;

  /// Not by the read-only path, as they will be overwritten.
  PARARNN_DEVICE_FN static PackedNumbers load(const Storage* from) {
    return {*reinterpret_cast<const Word*>(from)};
  }
  PARARNN_DEVICE_FN static void store(const Vec<float, N>& x, Storage* to) {
    Pairs pairs{};
    static_for<N / kPair>([&](auto p) {
      Vec<float, kPair> pair{};
      static_for<kPair>([&](auto i) { pair[i] = x[p * kPair + i]; });
      pairs.data[p] = cuda::Pack<Storage, kPair>::of(pair);
    });
    *reinterpret_cast<Word*>(to) = __builtin_bit_cast(Word, pairs);
  }
  PARARNN_DEVICE_FN Vec<float, N> unpack() const {
    const auto pairs = __builtin_bit_cast(Pairs, word);
    Vec<float, N> x{};
    static_for<N / kPair>([&](auto p) {
      const auto pair = pairs.data[p].unpack();
      static_for<kPair>([&](auto i) { x[p * kPair + i] = pair[i]; });
    });
    return x;
  }
};

PARARNN_DEVICE_FN float not_a_number() { return __uint_as_float(0x7fc00000u); }

/// e^x. The error of x log2(e) counts where the result is next to nothing beside others.
PARARNN_DEVICE_FN float exp_of(float x) { return special_exp2(x * 1.44269504f); }

/// Σ exp(x), as the largest x and the sum of exp(x - largest).
struct Partition {
  float largest, sum;

  /// Of no number. (A difference of two infinities would be NaN.)
  PARARNN_DEVICE_FN static Partition none() { return {-1e38f, 0}; }

  template <int N>
  PARARNN_DEVICE_FN void add(const Vec<float, N>& x) {
    float most = largest;
    static_for<N>([&](auto i) { most = ::fmaxf(most, x[i]); });
    sum *= exp_of(largest - most);
    static_for<N>([&](auto i) { sum += exp_of(x[i] - most); });
    largest = most;
  }

  /// Of all numbers of `lanes` neighbouring threads of a warp, known to each of them.
  PARARNN_DEVICE_FN Partition of_lanes(int lanes) const {
    float most = largest;
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      most = ::fmaxf(most, __shfl_xor_sync(0xffffffffu, most, distance));
    }
    float total = sum * exp_of(largest - most);
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, distance);
    }
    return {most, total};
  }

  /// Of all numbers of a block.
  template <int kThreads>
  PARARNN_DEVICE_FN Partition of_block() const {
    constexpr int kWarps = kThreads / kWarp;
    using Parts = Partition[kWarps];
    PARARNN_SHARED(Parts, parts);
    const Partition mine = of_lanes(kWarp);
    if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = mine;
    __syncthreads();
    return parts[threadIdx.x % kWarps].of_lanes(kWarps);
  }
};

template <class Storage, int kThreads, int kPacks, bool kGradient>
__global__ void __launch_bounds__(kThreads, kCrossEntropyThreads / kThreads)
    cross_entropy_rows(const __grid_constant__ CrossEntropyRows problem) {
  constexpr int kWidth = kLogitsPackBytes / sizeof(Storage);
  using Logits = PackedNumbers<Storage, kWidth>;
  Storage* const row = static_cast<Storage*>(problem.logits) + Int(blockIdx.x) * problem.stride;
  const int packs = (problem.width + kWidth - 1) / kWidth;
  const auto load = [&](int pack) { return Logits::load(row + pack * kWidth); };
  const auto values = [&](const Logits& logits, int pack) {
    Vec<float, kWidth> x = logits.unpack();
    if ((pack + 1) * kWidth > problem.width) {
      static_for<kWidth>([&](auto i) {
        if (pack * kWidth + i >= problem.width) x[i] = __uint_as_float(0xff800000u);  // -∞
      });
    }
    return x;
  };

  const long long target = problem.targets[blockIdx.x];
  const bool known = target >= 0 && target < problem.width;
  const float target_logit = known ? cuda::to_arithmetic(row[target]) : not_a_number();
  Logits held[kPacks] = {};
  static_for<kPacks>([&](auto p) {
    const int pack = p * kThreads + threadIdx.x;
    if (pack < packs) held[p] = load(pack);
  });
  Partition partition = Partition::none();
  static_for<kPacks>([&](auto p) {
    const int pack = p * kThreads + threadIdx.x;
    if (pack < packs) partition.add(values(held[p], pack));
  });
  int pack = kPacks * kThreads + threadIdx.x;
#pragma unroll 4
  for (; pack < packs; pack += kThreads) partition.add(values(load(pack), pack));
  partition = partition.of_block<kThreads>();

  const float log_partition = partition.largest + log(partition.sum);
  if (threadIdx.x == 0) {
    problem.cross_entropies[blockIdx.x] = log_partition - target_logit;
    problem.squared_log_partitions[blockIdx.x] = log_partition * log_partition;
  }
  if constexpr (kGradient) {
    const float factor =
        known ? (1 + 2 * problem.z_loss * log_partition) / partition.sum : not_a_number();
    const auto store_gradient = [&](const Logits& logits, int of_pack) {
      Vec<float, kWidth> x = values(logits, of_pack);
      static_for<kWidth>([&](auto i) { x[i] = exp_of(x[i] - partition.largest) * factor; });
      const Int in_pack = target - of_pack * kWidth;
      if (in_pack >= 0 && in_pack < kWidth) {
        static_for<kWidth>([&](auto i) {
          if (i == in_pack) x[i] -= 1;
        });
      }
      Logits::store(x, row + of_pack * kWidth);
    };
    // From the end, which was read last and is the likeliest to be in a cache.
#pragma unroll 4
    for (pack -= kThreads; pack >= kPacks * kThreads; pack -= kThreads) {
      store_gradient(load(pack), pack);
    }
    static_for<kPacks>([&](auto p) {
      const int of_held = p * kThreads + threadIdx.x;
      if (of_held < packs) store_gradient(held[p], of_held);
    });
  }
}

/// Multiplies a gradient by a number; by 1, without reading it.
template <class Storage, int kWidth>
__global__ void __launch_bounds__(kRowBlockThreads)
    scale_gradient(const __grid_constant__ GradientScaling problem) {
  const float factor = *problem.factor;
  if (factor == 1) return;
  using Numbers = PackedNumbers<Storage, kWidth>;
  Storage* const gradient = static_cast<Storage*>(problem.gradient);
  for (Int i = (Int(blockIdx.x) * blockDim.x + threadIdx.x) * kWidth; i < problem.count;
       i += Int(gridDim.x) * blockDim.x * kWidth) {
    auto x = Numbers::load(gradient + i).unpack();
    static_for<kWidth>([&](auto n) { x[n] *= factor; });
    Numbers::store(x, gradient + i);
  }
}

}  // namespace pararnn::ops
