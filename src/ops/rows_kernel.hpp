// What the GPU kernels over rows of channels share: a row is held in the registers of 32 or more
// threads, loaded once, computed in float, stored once.
//
// Compiled at run time, and by g++ for tests (pararnn/cuda/primitives.hpp).
#pragma once

#include "ops/rows_problem.hpp"
#include "pararnn/core/math.hpp"
#include "pararnn/core/vec.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/cuda/storage.hpp"

namespace pararnn::ops {

using cuda::Int, cuda::kWarp;

/// The sum over a warp's lanes, in each of them.
PARARNN_DEVICE_FN float sum_in_warp(float mine) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    mine += __shfl_xor_sync(0xffffffffu, mine, distance);
  }
  return mine;
}

/// N neighbouring numbers, an address of which is a multiple of all their bytes, or of 16.
template <int N, class Storage>
PARARNN_DEVICE_FN Vec<float, N> load_channels(const Storage* from) {
  constexpr int kPack = N * sizeof(Storage) > 16 ? 16 / sizeof(Storage) : N;
  Vec<float, N> result{};
  static_for<N / kPack>([&](auto p) {
    const auto pack = cuda::load_pack<Storage, kPack>(from + p * kPack).unpack();
    static_for<kPack>([&](auto i) { result[p * kPack + i] = pack[i]; });
  });
  return result;
}
template <int N, class Storage>
PARARNN_DEVICE_FN void store_channels(const Vec<float, N>& values, Storage* to) {
  constexpr int kPack = N * sizeof(Storage) > 16 ? 16 / sizeof(Storage) : N;
  static_for<N / kPack>([&](auto p) {
    Vec<float, kPack> pack{};
    static_for<kPack>([&](auto i) { pack[i] = values[p * kPack + i]; });
    cuda::store_pack(to + p * kPack, cuda::Pack<Storage, kPack>::of(pack));
  });
}

/// How a row lies in registers: each of `kThreads` threads holds `kPacks` packs of `kWidth`
/// neighbouring channels; what the threads hold as pack p lies side by side. Channels behind the
/// last of the row are zeros. A block has kRows rows; its threads are a multiple of kThreads.
template <int kWidth, int kPacks, int kThreads>
struct RowShare {
  static constexpr int kChannels = kWidth * kPacks;
  static constexpr int kBlock = row_block_threads(kThreads);
  static constexpr int kRows = kBlock / kThreads;
  using Values = Vec<float, kChannels>;

  PARARNN_DEVICE_FN static int thread() { return threadIdx.x % kThreads; }
  PARARNN_DEVICE_FN static int row_in_block() { return threadIdx.x / kThreads; }
  PARARNN_DEVICE_FN static int channel(int pack) { return (pack * kThreads + thread()) * kWidth; }

  /// A row as it lies in memory, on its way from there until it is unpacked.
  template <class Storage>
  struct Fetched {
    static constexpr int kPack = kWidth * sizeof(Storage) > 16 ? 16 / sizeof(Storage) : kWidth;
    cuda::Pack<Storage, kPack> packs[kChannels / kPack];

    PARARNN_DEVICE_FN Values unpack() const {
      Values result{};
      static_for<kChannels / kPack>([&](auto p) {
        const auto pack = packs[p].unpack();
        static_for<kPack>([&](auto i) { result[p * kPack + i] = pack[i]; });
      });
      return result;
    }
  };
  /// A row of `width` channels, a multiple of kWidth.
  template <class Storage>
  PARARNN_DEVICE_FN static Fetched<Storage> fetch(const Storage* row, int width) {
    constexpr int kPack = Fetched<Storage>::kPack, kEach = kWidth / kPack;
    Fetched<Storage> result{};
    static_for<kPacks>([&](auto p) {
      if (channel(p) >= width) return;
      static_for<kEach>([&](auto j) {
        result.packs[p * kEach + j] = cuda::load_pack<Storage, kPack>(row + channel(p) + j * kPack);
      });
    });
    return result;
  }
  template <class Storage>
  PARARNN_DEVICE_FN static Values load(const Storage* row, int width) {
    return fetch(row, width).unpack();
  }
  template <class Storage>
  PARARNN_DEVICE_FN static void store(const Values& values, Storage* row, int width) {
    static_for<kPacks>([&](auto p) {
      if (channel(p) >= width) return;
      Vec<float, kWidth> pack{};
      static_for<kWidth>([&](auto i) { pack[i] = values[p * kWidth + i]; });
      store_channels(pack, row + channel(p));
    });
  }

  /// Sums over the threads of a row, known to each of them. All threads of the block call it, with
  /// a turn of 0 and 1 by turns.
  template <int N>
  PARARNN_DEVICE_FN static Vec<float, N> sum(Vec<float, N> mine, int turn) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      static_for<N>([&](auto n) { mine[n] += __shfl_xor_sync(0xffffffffu, mine[n], distance); });
    }
    if constexpr (kThreads > kWarp) {
      constexpr int kWarps = kBlock / kWarp, kWarpsOfRow = kThreads / kWarp;
      using Sums = float[2][kWarps][N];
      PARARNN_SHARED(Sums, sums);
      const int warp = threadIdx.x / kWarp;
      if (threadIdx.x % kWarp == 0) {
        static_for<N>([&](auto n) { sums[turn][warp][n] = mine[n]; });
      }
      __syncthreads();  // so the sums of the turn before this one have been read, too
      mine = {};
      for (int w = 0; w < kWarpsOfRow; ++w) {
        static_for<N>([&](auto n) { mine[n] += sums[turn][row_in_block() * kWarpsOfRow + w][n]; });
      }
    }
    return mine;
  }

  /// Adds up what the rows of a block hold, in their order, and stores it. All threads of the block
  /// call it.
  PARARNN_DEVICE_FN static void store_sum_of_block(const Values& mine, float* to, int width) {
    if constexpr (kRows == 1) {
      store(mine, to, width);
    } else {
      using Rows = float[kRows][kThreads * kChannels];
      PARARNN_SHARED(Rows, rows);
      __syncthreads();  // what another call has stored there was read
      static_for<kChannels>(
          [&](auto i) { rows[row_in_block()][channel(i / kWidth) + i % kWidth] = mine[i]; });
      __syncthreads();
      for (int i = threadIdx.x; i < width; i += kBlock) {
        float sum = 0;
        for (int row = 0; row < kRows; ++row) sum += rows[row][i];
        to[i] = sum;
      }
    }
  }

  /// Calls f(row, whether there is one, what fetch(row) gave, turn) for the rows of this thread, as
  /// often on each thread of the block. The next row is fetched before, where threads have the
  /// registers for it.
  template <class Fetch, class F>
  PARARNN_DEVICE_FN static void for_each_row(Int rows, const Fetch& fetch, const F& f) {
    constexpr bool kAhead = kBlock <= 512;
    const Int stride = Int(gridDim.x) * kRows;
    const auto row_at = [&](Int first) {
      const Int row = first + row_in_block();
      return row < rows ? row : rows - 1;
    };
    auto coming = fetch(row_at(Int(blockIdx.x) * kRows));
    int turn = 0;
    for (Int first = Int(blockIdx.x) * kRows; first < rows; first += stride, turn = 1 - turn) {
      const auto here = coming;
      if (kAhead && first + stride < rows) coming = fetch(row_at(first + stride));
      f(row_at(first), first + row_in_block() < rows, here, turn);
      if (!kAhead && first + stride < rows) coming = fetch(row_at(first + stride));
    }
  }
};

/// A thread's queue of what is on its way to it from memory, in a place of shared memory that is
/// its own: many loads are in flight that no register waits for. A slot has a pack of kStreams
/// tensors. Each step closes the slot that it sends to, kAhead slots after the one that it takes
/// from.
template <class Storage, int kWidth, int kStreams, int kThreads>
class SlotQueue {
  using Pack = cuda::Pack<Storage, kWidth>;
  static constexpr int kSlots = 8;

 public:
  static constexpr int kAhead = kSlots - 1;
  using Memory = Pack[kSlots][kStreams][kThreads];

  PARARNN_DEVICE_FN explicit SlotQueue(Memory& memory) : memory_(memory) {}

  PARARNN_DEVICE_FN void send(int stream, const Storage* from) {
    Pack& to = memory_[sent_ % kSlots][stream][threadIdx.x];
    if constexpr (sizeof(Pack) >= 4) {
      using Word = typename cuda::WordOf<sizeof(Pack)>::type;
      cuda::copy_async(reinterpret_cast<Word*>(&to), from);
    } else {
      to = cuda::load_pack<Storage, kWidth>(from);
    }
  }
  PARARNN_DEVICE_FN void close() {
    cuda::commit_copies();
    ++sent_;
  }
  PARARNN_DEVICE_FN void wait() { cuda::wait_for_copies<kAhead>(); }
  PARARNN_DEVICE_FN Vec<float, kWidth> take(int stream) const {
    return memory_[taken_ % kSlots][stream][threadIdx.x].unpack();
  }
  PARARNN_DEVICE_FN void advance() { ++taken_; }

 private:
  Memory& memory_;
  unsigned sent_ = 0, taken_ = 0;
};

/// x sigmoid(x)
PARARNN_FN float silu(float x) { return x * sigmoid(x); }

/// Its derivative.
PARARNN_FN float silu_slope(float x) {
  const float s = sigmoid(x);
  return s * (1 + x * (1 - s));
}

}  // namespace pararnn::ops
