// How the kernels of the state-space recurrence that multiply hold matrices of bfloat16.
//
// A warp has 16 rows of a product, and its columns in tiles of 8. Of rows lane / 4 and 8 behind it
// a lane has columns 2 n and 2 n + 1 of each tile, n = lane % 4, as multiply_in_warp gives them.
// What is multiplied comes 32 numbers at a time, as two of its products. Which of the 32 is which
// does not matter where both sides agree: lane n has numbers 8 n to 8 n + 7, one access of 16
// bytes, of which the first four are the first product's.
#pragma once

#include "ops/ssd/ssd_kernel.hpp"

namespace pararnn::ops {

/// Number 0 or 1 of two in a word.
PARARNN_DEVICE_FN float number_of_word(unsigned word, int i) {
  return __uint_as_float(i ? word & 0xffff0000u : word << 16);
}

/// sums += 16 rows times a tile's 8 columns, of 32 numbers each.
PARARNN_DEVICE_FN void multiply_32(const uint4 (&rows)[2], const uint4& column, float (&sums)[4]) {
  const unsigned first[4] = {rows[0].x, rows[1].x, rows[0].y, rows[1].y};
  const unsigned second[4] = {rows[0].z, rows[1].z, rows[0].w, rows[1].w};
  cuda::multiply_in_warp(first, {column.x, column.y}, sums);
  cuda::multiply_in_warp(second, {column.z, column.w}, sums);
}

/// A lane's words of two neighbouring tiles, of one row, as four numbers that are neighbours in
/// memory, from number neighbours_from(lane) of the 16 on.
PARARNN_DEVICE_FN uint2 neighbours_of(unsigned lane, uint2 words) {
  const bool odd = lane % 2 == 1;
  const unsigned other = __shfl_xor_sync(0xffffffffu, odd ? words.x : words.y, 1);
  return odd ? uint2{other, words.y} : uint2{words.x, other};
}
PARARNN_DEVICE_FN unsigned neighbours_from(unsigned lane) {
  return lane % 2 * 8 + lane % 4 / 2 * 4;
}

/// A matrix in shared memory, its rows in packs of 8 numbers. Packs change places in a row, so that
/// what the lanes of one access read lies in different banks: the same pack of eight rows one after
/// the other, or of every fourth pair of rows; or four packs of two rows.
template <unsigned kRows, unsigned kNumbers>
struct SharedMatrix {
  static constexpr unsigned kPacks = kNumbers / 8;
  static_assert(kPacks >= 4 && (kPacks & (kPacks - 1)) == 0);
  uint4 packs[kRows][kPacks];

  /// What the number of a pack changes by, in a row; of a sum of rows that have no bit in common,
  /// by what it does for each.
  PARARNN_DEVICE_FN static unsigned turn(unsigned row) {
    return (row % 2 * 4 ^ row / 2 % 4 ^ row / 8 % 4) & (kPacks - 1);
  }
  PARARNN_DEVICE_FN uint4& at(unsigned row, unsigned pack) { return packs[row][pack ^ turn(row)]; }
  /// The word of two numbers from `number` on, which is even.
  PARARNN_DEVICE_FN unsigned word(unsigned row, unsigned number) {
    return reinterpret_cast<const unsigned*>(&at(row, number / 8))[number / 2 % 4];
  }

  /// Sends rows that are `stride` numbers apart here, each thread some packs; zeros from row
  /// `there` on.
  template <unsigned kThreads>
  PARARNN_DEVICE_FN void send(unsigned thread, const cuda::BFloat16* from, Int stride, int there) {
    const unsigned pack = thread % kPacks;
    from += thread / kPacks * stride + pack * 8;
#pragma unroll 1
    for (unsigned row = thread / kPacks; row < kRows; row += kThreads / kPacks) {
      if (static_cast<int>(row) < there) {
        cuda::copy_async(&at(row, pack), from);
      } else {
        at(row, pack) = uint4{};
      }
      from += kThreads / kPacks * stride;
    }
  }

  /// Of 16 rows from `top` on a lane's numbers, from 32 block on.
  PARARNN_DEVICE_FN void rows_of_warp(unsigned lane, unsigned top, unsigned block,
                                      uint4 (&rows)[2]) {
    static_for<2>(
        [&](auto half) { rows[half] = at(top + half * 8 + lane / 4, block * 4 + lane % 4); });
  }
  /// Of the 8 rows of a tile, which are columns of a product.
  PARARNN_DEVICE_FN uint4 rows_of_tile(unsigned lane, unsigned tile, unsigned block) {
    const unsigned row = lane / 4, first = tile * 8;
    return packs[first + row][(block * 4 + lane % 4) ^ turn(row) ^ turn(first)];
  }
  /// The same of the matrix transposed: of the columns of a tile, numbers at rows from 32 block on.
  PARARNN_DEVICE_FN uint4 columns_of_tile(unsigned lane, unsigned tile, unsigned block) {
    const unsigned row = lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;
    return cuda::load_transposed(&packs[block * 32 + row][tile ^ turn(row)]);
  }
};

/// A lane's numbers of 16 rows in memory, the first of which is `top`, from 32 block on.
PARARNN_DEVICE_FN void load_rows(unsigned lane, const cuda::BFloat16* top, unsigned stride,
                                 unsigned block, uint4 (&rows)[2]) {
  const auto from = reinterpret_cast<const uint4*>(top + lane / 4 * stride) + block * 4 + lane % 4;
  rows[0] = __ldg(from);
  rows[1] = __ldg(from + stride);  // eight rows of packs of eight
}

/// The decays of a head in a chunk, in shared memory.
template <unsigned kChunk>
struct SharedDecays {
  float step[kChunk], log[kChunk];

  /// dt of N steps.
  template <int N>
  PARARNN_DEVICE_FN Vec<float, N> steps(unsigned first) const {
    return read<N>(step + first);
  }
  /// Logarithms to the base of 2, of N steps.
  template <int N>
  PARARNN_DEVICE_FN Vec<float, N> binary_logs(unsigned first) const {
    auto logs = read<N>(log + first);
    static_for<N>([&](auto i) { logs[i] *= kBinaryLog; });
    return logs;
  }
  PARARNN_DEVICE_FN float binary_log(unsigned step) const { return log[step] * kBinaryLog; }

  template <unsigned kThreads>
  PARARNN_DEVICE_FN void send(unsigned thread, const SsdDecays& from, Int matrix) {
    static_assert(kThreads >= kChunk / 2);
    constexpr unsigned kPacks = kChunk / 4;
    if (thread >= 2 * kPacks) return;
    const bool is_log = thread >= kPacks;
    const unsigned first = thread % kPacks * 4;
    cuda::copy_async(reinterpret_cast<uint4*>((is_log ? log : step) + first),
                     (is_log ? from.log : from.step) + matrix * kChunk + first);
  }

 private:
  template <int N>
  PARARNN_DEVICE_FN static Vec<float, N> read(const float* from) {
    constexpr int kPack = N < 4 ? N : 4;
    Vec<float, N> result{};
    static_for<N / kPack>([&](auto p) {
      const auto pack = reinterpret_cast<const cuda::Pack<float, kPack>*>(from)[p].unpack();
      static_for<kPack>([&](auto i) { result[p * kPack + i] = pack[i]; });
    });
    return result;
  }
};

/// The heads of a group in a chunk.
struct SsdGroup {
  Int number, chunk_number;  // of all chunks
  Int batch, first;          // the chunk's first step
  int heads, first_head;
  int steps;           // that there are
  const int* segment;  // or null

  PARARNN_DEVICE_FN SsdGroup(const SsdExtent& extent, const SsdDecays& decays, int chunk, Int group)
      : number(group),
        chunk_number(group / extent.groups),
        batch(chunk_number / extent.chunks),
        first(chunk_number % extent.chunks * chunk),
        heads(extent.heads_of_group()),
        first_head(static_cast<int>(group % extent.groups) * heads),
        steps(extent.steps - first < chunk ? static_cast<int>(extent.steps - first) : chunk),
        segment(decays.segment ? decays.segment + chunk_number * chunk : nullptr) {}

  PARARNN_DEVICE_FN Int matrix(int in_group) const { return number * heads + in_group; }
  /// The first step of a head.
  PARARNN_DEVICE_FN cuda::BFloat16* at(const SsdSteps& of, int in_group) const {
    return static_cast<cuda::BFloat16*>(of.data) + batch * of.batch_stride +
           first * of.step_stride + (first_head + in_group) * of.head_stride;
  }
};

/// The sum over the four lanes that have a row's columns.
PARARNN_DEVICE_FN float sum_over_columns(float mine) {
  mine += __shfl_xor_sync(0xffffffffu, mine, 1);
  return mine + __shfl_xor_sync(0xffffffffu, mine, 2);
}

/// The steps of a chunk that a step is connected with: no start of the row lies between.
struct SsdConnected {
  int first, last;

  PARARNN_DEVICE_FN SsdConnected(const int* segment, int chunk, int step)
      : first(0), last(chunk - 1) {
    if (!segment) return;
    // The first step of a segment not before `number`.
    const auto find = [&](int number) {
      int low = 0, high = chunk;
      while (low < high) {
        const int middle = (low + high) / 2;
        if (segment[middle] < number) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      return low;
    };
    first = find(segment[step]);
    last = find(segment[step] + 1) - 1;
  }
};

}  // namespace pararnn::ops
