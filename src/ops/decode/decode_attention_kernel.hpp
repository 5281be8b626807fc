// Attention of one token of each row over a cache of keys and values: the cache is read once, at
// the rate of memory, whatever the batch.
//
// A block takes the query heads that share a head of keys and values, and a part of the tokens
// (Dao et al., "Flash-Decoding", 2023). A key's channels lie in neighbouring threads, eight in
// each, which come with one load; each such team goes through its own tokens with a softmax that is
// built up as it goes: the largest score so far, and sums relative to it. Keys and values are on
// their way into shared memory several tokens ahead. Teams, then warps, then blocks are put
// together; the block that comes last does it for the others of its heads, and the last of a row
// moves the row on by one token.
#pragma once

#include "ops/decode/decode_attention_problem.hpp"
#include "ops/decode/decode_kernel.hpp"
#include "ops/rotary/rotary_kernel.hpp"

namespace pararnn::ops {

template <int kTiles, int kColumns, bool kOwnProduct>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kOwnProduct>)
    decode_attention_input(const __grid_constant__ DecodeProblem<DecodeRotation> problem) {
  const DecodeRotation& e = problem.end;
  const auto product = product_of_block<2, kTiles, kColumns, kOwnProduct>(problem.product);
  const int pairs = problem.product.channels, head = product.head;
  product.run([&](int row, int pair, bool there, const Vec<float, 2>& sums) {
    if (!there) return;
    const Int read = e.read[row];
    float first = sums[0], second = sums[1];
    if (head < e.query_heads + e.key_heads) {
      const float angle = rotary_angle(read - e.begin[row], e.turns[pair]);
      const float cosine = cos(angle), sine = sin(angle);
      first = sums[0] * cosine - sums[1] * sine;
      second = sums[1] * cosine + sums[0] * sine;
    }
    if (head < e.query_heads) {
      float* to = e.queries + (Int(row) * e.query_heads + head) * 2 * pairs + pair;
      to[0] = first;
      to[pairs] = second;
    } else if (read < e.capacity) {
      const bool is_value = head >= e.query_heads + e.key_heads;
      const int of_cache = (head - e.query_heads) % e.key_heads;
      void* cache = is_value ? e.values : e.keys;
      const Int at = ((Int(row) * e.capacity + read) * e.key_heads + of_cache) * 2 * pairs + pair;
      store_bfloat16(cache, at, first);
      store_bfloat16(cache, at + pairs, second);
    }
  });
}

/// No score is as low; differences to it are no infinities.
inline constexpr float kNoScore = -1e30f;

/// Eight bfloat16.
PARARNN_DEVICE_FN Vec<float, 8> unpack_bfloat16(const uint4& pack) {
  const unsigned words[4] = {pack.x, pack.y, pack.z, pack.w};
  Vec<float, 8> x{};
  static_for<4>([&](auto i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  });
  return x;
}

PARARNN_DEVICE_FN float largest_in_warp(float mine) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, mine, distance);
    mine = other > mine ? other : mine;
  }
  return mine;
}

/// kQueries: query heads of a block. kLanes: threads of a team, a power of two.
template <int kQueries, int kLanes>
struct AttentionBlock {
  static constexpr int kPack = 8, kWarps = kAttentionThreads / kWarp;
  static constexpr int kTeams = kAttentionThreads / kLanes;
  static constexpr int kSlots = 8, kAhead = kSlots - 1;

  using Four = Vec<float, 4>;
  /// A thread's queue of keys and values on their way.
  using Queue = uint4[kSlots][2][kAttentionThreads];
  struct Memory {
    float values[kWarps][kPack * kLanes];  // of a query
    float largest[kWarps], sum[kWarps];
    float weights[kQueries][kMostSplits];
    Four parts[kAttentionThreads];
    bool is_last;
  };

  /// The softmax so far, of a team, a warp or a block.
  struct Softmax {
    float largest = kNoScore, sum = 0;
    Vec<float, kPack> values{};  // of the thread's channels

    PARARNN_DEVICE_FN void scale(float factor) {
      sum *= factor;
      static_for<kPack>([&](auto j) { values[j] *= factor; });
    }
    PARARNN_DEVICE_FN void add(float score, const Vec<float, kPack>& value) {
      if (score > largest) {  // seldom
        scale(special_exp2(largest - score));
        largest = score;
      }
      const float weight = special_exp2(score - largest);
      sum += weight;
      static_for<kPack>([&](auto j) { values[j] += weight * value[j]; });
    }
    /// Puts it together with that of the thread at a distance in the warp, both ways.
    PARARNN_DEVICE_FN void meet(int distance) {
      const float other = __shfl_xor_sync(0xffffffffu, largest, distance);
      const float common = other > largest ? other : largest;
      scale(special_exp2(largest - common));
      largest = common;
      sum += __shfl_xor_sync(0xffffffffu, sum, distance);
      static_for<kPack>(
          [&](auto j) { values[j] += __shfl_xor_sync(0xffffffffu, values[j], distance); });
    }
  };

  const DecodeAttention& p;
  int blocks_of_row, block_of_row, row, first_query, key_head, split;
  int thread = threadIdx.x, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int channel = thread % kLanes * kPack;

  PARARNN_DEVICE_FN explicit AttentionBlock(const DecodeAttention& problem) : p(problem) {
    blocks_of_row = p.query_heads / kQueries;
    block_of_row = static_cast<int>(blockIdx.x) % blocks_of_row;
    row = static_cast<int>(blockIdx.x) / blocks_of_row;
    first_query = block_of_row * kQueries;
    key_head = first_query / (p.query_heads / p.key_heads);
    split = static_cast<int>(blockIdx.y);
  }

  /// Of a query of the block.
  PARARNN_DEVICE_FN Int query_head(int query) const {
    return Int(row) * p.query_heads + first_query + query;
  }

  /// Goes through the tokens from `first` to before `last`.
  PARARNN_DEVICE_FN void read_cache(Int first, Int last, Softmax (&found)[kQueries]) const {
    PARARNN_SHARED(Queue, queue);
    Vec<float, kPack> queries[kQueries] = {};
    const bool has_channels = channel < p.channels;
    if (has_channels) {
      static_for<kQueries>([&](auto q) {
        static_for<kPack>([&](auto j) {
          queries[q][j] = p.scale * p.queries[query_head(q) * p.channels + channel + j];
        });
      });
    }
    const Int token_stride = Int(p.key_heads) * p.channels;
    Int token = first + thread / kLanes;
    Int at = (Int(row) * p.capacity + token) * token_stride + Int(key_head) * p.channels + channel;
    Int sent = token;
    unsigned to = 0, from = 0;
    const auto send = [&] {
      if (sent < last && has_channels) {
        cuda::copy_async(&queue[to][0][thread], static_cast<const BFloat16*>(p.keys) + at);
        cuda::copy_async(&queue[to][1][thread], static_cast<const BFloat16*>(p.values) + at);
      }
      cuda::commit_copies();
      sent += kTeams;
      at += kTeams * token_stride;
      to = (to + 1) % kSlots;
    };
    static_for<kAhead>([&](auto) { send(); });
    // All threads of the block go round as often.
    for (Int round = first; round < last; round += kTeams, token += kTeams) {
      cuda::wait_for_copies<kAhead - 1>();
      const bool here = token < last && has_channels;
      const uint4 key_pack = here ? queue[from][0][thread] : uint4{0, 0, 0, 0};
      const uint4 value_pack = here ? queue[from][1][thread] : uint4{0, 0, 0, 0};
      from = (from + 1) % kSlots;
      send();
      const auto key = unpack_bfloat16(key_pack), value = unpack_bfloat16(value_pack);
      static_for<kQueries>([&](auto q) {
        float score = 0;
        static_for<kPack>([&](auto j) { score += queries[q][j] * key[j]; });
        for (int distance = kLanes / 2; distance > 0; distance /= 2) {
          score += __shfl_xor_sync(0xffffffffu, score, distance);
        }
        if (token < last) found[q].add(score, value);
      });
    }
    cuda::wait_for_copies<0>();
  }

  /// Puts the warps' together for one query, and stores the result or, where there are several
  /// splits, what is to be put together later.
  PARARNN_DEVICE_FN void store(Memory& memory, int query, Softmax& found) const {
    for (int distance = kLanes; distance < kWarp; distance *= 2) found.meet(distance);
    __syncthreads();  // the memory has been read
    if (lane < kLanes) {
      static_for<kPack>([&](auto j) { memory.values[warp][channel + j] = found.values[j]; });
    }
    if (lane == 0) {
      memory.largest[warp] = found.largest;
      memory.sum[warp] = found.sum;
    }
    __syncthreads();
    float largest = memory.largest[0];
    for (int w = 1; w < kWarps; ++w) {
      largest = memory.largest[w] > largest ? memory.largest[w] : largest;
    }
    float factors[kWarps] = {}, sum = 0;
    static_for<kWarps>([&](auto w) {
      factors[w] = special_exp2(memory.largest[w] - largest);
      sum += factors[w] * memory.sum[w];
    });
    const Int head = query_head(query), part = head * p.splits + split;
    for (int c = thread; c < p.channels; c += kAttentionThreads) {
      float value = 0;
      static_for<kWarps>([&](auto w) { value += factors[w] * memory.values[w][c]; });
      if (p.splits == 1) {
        store_bfloat16(p.next, head * p.channels + c, value / sum);
      } else {
        p.partial[part * p.channels + c] = value;
      }
    }
    if (p.splits > 1 && thread == 0) {
      p.largests[part] = largest;
      p.sums[part] = sum;
    }
  }

  /// Whether this is the last of so many blocks to come; known to all its threads. What the others
  /// wrote before they came is seen then.
  PARARNN_DEVICE_FN bool comes_last(Memory& memory, unsigned* counter, int blocks) const {
    __threadfence();
    __syncthreads();
    if (thread == 0) {
      memory.is_last = atomicAdd(counter, 1u) == static_cast<unsigned>(blocks) - 1;
      if (memory.is_last) *counter = 0;  // for the next token
    }
    __syncthreads();
    __threadfence();
    return memory.is_last;
  }

  /// Puts together what the splits found of the block's queries.
  PARARNN_DEVICE_FN void combine(Memory& memory) const {
    for (int query = warp; query < kQueries; query += kWarps) {
      const Int first = query_head(query) * p.splits;
      float largest = kNoScore, sum = 0;
      for (int s = lane; s < p.splits; s += kWarp) {
        largest = p.largests[first + s] > largest ? p.largests[first + s] : largest;
      }
      largest = largest_in_warp(largest);
      for (int s = lane; s < p.splits; s += kWarp) {
        const float weight = special_exp2(p.largests[first + s] - largest);
        memory.weights[query][s] = weight;
        sum += weight * p.sums[first + s];
      }
      const float inverse = 1 / sum_in_warp(sum);
      for (int s = lane; s < p.splits; s += kWarp) memory.weights[query][s] *= inverse;
    }
    __syncthreads();
    // Four channels a thread; where there are more threads, they share the splits.
    const int packs = p.channels / 4, items = kQueries * packs;
    const int shares = items < kAttentionThreads ? kAttentionThreads / items : 1;
    for (int first = 0; first < items; first += kAttentionThreads) {
      const int item = shares > 1 ? thread % items : first + thread;
      const int share = shares > 1 ? thread / items : 0;
      const int query = item / packs, pack = item % packs;
      const bool there = item < items && share < shares;
      Four sum{};
      if (there) {
        const float* from = p.partial + query_head(query) * p.splits * p.channels + pack * 4;
#pragma unroll 8
        for (int s = share; s < p.splits; s += shares) {
          // One load, and not by the read-only path, as this grid has written it.
          const auto values =
              __builtin_bit_cast(Four, *reinterpret_cast<const uint4*>(from + Int(s) * p.channels));
          static_for<4>([&](auto i) { sum[i] += memory.weights[query][s] * values[i]; });
        }
      }
      if (shares > 1) {
        memory.parts[thread] = sum;
        __syncthreads();
        if (share == 0) {
          for (int other = 1; other < shares; ++other) {
            static_for<4>([&](auto i) { sum[i] += memory.parts[thread + other * items][i]; });
          }
        }
      }
      if (there && share == 0) {
        static_for<4>([&](auto i) {
          store_bfloat16(p.next, query_head(query) * p.channels + pack * 4 + i, sum[i]);
        });
      }
    }
  }
};

/// Blocks on a multiprocessor.
template <int kQueries>
inline constexpr int kAttentionBlocks = kQueries > 4 ? 2 : 4;

template <int kQueries, int kLanes>
__global__ void __launch_bounds__(kAttentionThreads, kAttentionBlocks<kQueries>)
    decode_attention(const __grid_constant__ DecodeAttention problem) {
  using Block = AttentionBlock<kQueries, kLanes>;
  PARARNN_SHARED(typename Block::Memory, memory);
  cuda::let_next_kernel_start();
  cuda::wait_for_previous_kernel();
  const DecodeAttention& p = problem;
  const Block block(p);
  const Int begin = p.begin[block.row], read = p.read[block.row];
  // A row whose cache is full sees nothing: 0 / 0.
  const Int tokens = read < p.capacity ? read + 1 - begin : 0;
  const Int of_split = (tokens + p.splits - 1) / p.splits;
  const Int first = block.split * of_split, last = first + of_split;
  typename Block::Softmax found[kQueries];
  block.read_cache(begin + (first < tokens ? first : tokens),
                   begin + (last < tokens ? last : tokens), found);
  static_for<kQueries>([&](auto q) { block.store(memory, q, found[q]); });
  unsigned* arrived = p.arrived + Int(block.row) * (p.query_heads + 1);
  const bool is_last =
      p.splits == 1 || block.comes_last(memory, arrived + block.block_of_row, p.splits);
  if (is_last) {
    if (p.splits > 1) block.combine(memory);
    if (block.comes_last(memory, arrived + p.query_heads, block.blocks_of_row) &&
        threadIdx.x == 0) {
      p.read[block.row] = read + 1;
    }
  }
}

}  // namespace pararnn::ops
