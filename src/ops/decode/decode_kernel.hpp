// A model that reads one token of each row of a batch, as one kernel whose blocks stay for all of
// its products. What lies between two products is the end of the first; then the blocks meet.
//
// A product's weights pass through the tensor cores' small products, for up to 64 rows of a batch
// at once. They do not depend on what is computed, so each warp has the next of all products on
// their way to shared memory, over the ends and the meetings: memory never waits.
//
// With few rows a block has 8 channels of every group, and its warps share the depth. With many the
// inputs would be more bytes than the weights if each block read all of them: then the blocks of a
// cluster share the depth, and each adds up and ends some of the rows. A norm before a product is
// two parts: its weight is in x, and its factor 1 / rms, one a row, follows the product.
#pragma once

#include "ops/decode/decode_problem.hpp"
#include "ops/rows_kernel.hpp"
#include "pararnn/core/cell.hpp"

namespace pararnn::ops {

using cuda::BFloat16;

PARARNN_DEVICE_FN void store_bfloat16(void* to, Int at, float x) {
  static_cast<BFloat16*>(to)[at] = cuda::Converted<BFloat16>::from(x);
}
PARARNN_DEVICE_FN float load_bfloat16(const void* from, Int at) {
  return cuda::to_arithmetic(static_cast<const BFloat16*>(from)[at]);
}

PARARNN_DEVICE_FN float sum_in_warp(float mine) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    mine += __shfl_xor_sync(0xffffffffu, mine, distance);
  }
  return mine;
}

PARARNN_FN int count_bits(unsigned bits) {
  int count = 0;
  for (; bits; bits &= bits - 1) ++count;
  return count;
}

/// What the cell is to a decoder. kGiven: bits of its inputs that are not projected, which are 1.
template <class Cell, unsigned kGivenInputs>
struct DecodedCell {
  using C = Cell;
  static constexpr unsigned kGiven = kGivenInputs;
  static constexpr int kProjected = C::kInputs - count_bits(kGiven);
};

/// Groups of channels of a product.
template <class Cell>
PARARNN_FN int groups_of(DecodeKind kind) {
  if (kind == kProjection) return Cell::kProjected;
  return kind == kMixerInput || kind == kMlpInput ? 2 : 1;
}

/// For each channel c of a head and each group g
///   sum[g] = Σ_k weight[head (groups · channels) + g · channels + c][k] x[b][head depth + k].
struct ProductShape {
  const BFloat16* weight;
  int heads, channels, depth;
};

template <int kLayers>
PARARNN_DEVICE_FN ProductShape shape_of(const DecodeProblem<kLayers>& problem, DecodeKind kind,
                                        int layer) {
  const DecodeModel& m = problem.model;
  const void* weight = kind == kLogits ? m.output : problem.layers[layer].weights[kind];
  const int heads = kind == kProjection ? m.heads : 1;
  const int channels = kind == kLogits ? m.vocabulary : kind == kMlpInput ? m.hidden : m.width;
  const int depth = kind == kMlpOutput ? m.hidden : m.width;
  return {static_cast<const BFloat16*>(weight), heads, channels / heads, depth / heads};
}

/// The units of a product, each the channels that a cluster takes at once, for each kRows rows of
/// the batch; and those that a cluster has. The clusters take turns over the products.
struct ProductUnits {
  int of_head, row_blocks, count, unit, step;

  PARARNN_DEVICE_FN static ProductUnits of(const ProductShape& shape, int channels, int row_blocks,
                                           int cluster, int clusters, int turn) {
    const int of_head = (shape.channels + channels - 1) / channels;
    const int first = cluster >= turn ? cluster - turn : cluster - turn + clusters;
    return {of_head, row_blocks, shape.heads * of_head * row_blocks, first, clusters};
  }
  PARARNN_DEVICE_FN bool there() const { return unit < count; }
  PARARNN_DEVICE_FN void next() { unit += step; }
  PARARNN_DEVICE_FN int row_block() const { return unit % row_blocks; }
  PARARNN_DEVICE_FN int head() const { return unit / row_blocks / of_head; }
  PARARNN_DEVICE_FN int of_channels() const { return unit / row_blocks % of_head; }
  /// Whose turn it is in the next product.
  PARARNN_DEVICE_FN int next_turn(int turn) const { return (turn + count) % step; }
};

/// The ends of products. `early` loads what was there before the product before, `late` the rest;
/// `finish` takes the sums of a row and a channel, whose number of the head is `of_head`.
template <int kTaps>
struct MixerInputEnd {
  struct Operands {
    float weight[kTaps], before[kTaps];  // the last of these is not used
  };
  const DecodeModel& m;
  const DecodeLayer& l;

  PARARNN_DEVICE_FN Int history(int row, int channel) const {
    return Int(row) * (kTaps - 1) * m.width + channel;
  }
  PARARNN_DEVICE_FN void early(Operands& o, int row, int, int channel) const {
    static_for<kTaps>([&](auto k) { o.weight[k] = l.taps[k * m.width + channel]; });
    static_for<kTaps - 1>([&](auto k) {
      o.before[k] = load_bfloat16(l.before, history(row, channel) + k * m.width);
    });
  }
  PARARNN_DEVICE_FN void late(Operands&, int, int) const {}
  /// The branch through the convolution, and silu(gate).
  PARARNN_DEVICE_FN float finish(Operands& o, int row, int channel,
                                 const Vec<float, 2>& sums) const {
    const Int at = Int(row) * m.width + channel;
    // What is kept for the next steps is what this step sees.
    o.before[kTaps - 1] = cuda::to_arithmetic(cuda::Converted<BFloat16>::from(sums[0]));
    float sum = o.weight[kTaps - 1] * o.before[kTaps - 1];
    static_for<kTaps - 1>([&](auto k) {
      sum += o.weight[k] * o.before[k];
      store_bfloat16(l.before, history(row, channel) + k * m.width, o.before[k + 1]);
    });
    store_bfloat16(m.convolved, at, sum);
    m.gate[at] = silu(sums[1]);
    return 0;
  }
};

template <class Cell>
struct ProjectionEnd {
  using C = typename Cell::C;
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams, kProjected = Cell::kProjected;
  struct Operands {
    Vec<float, kProjected> bias;
    Vec<float, P> recurrent;
    Vec<float, S> state;
    float norm_weight, gate;
  };
  const DecodeModel& m;
  const DecodeLayer& l;

  PARARNN_DEVICE_FN float* state(int row, int channel) const {
    return l.state + Int(row) * S * m.width + channel;
  }
  PARARNN_DEVICE_FN void early(Operands& o, int row, int of_head, int channel) const {
    const int channels = m.width / m.heads;
    const float* bias = l.bias + Int(channel - of_head) * kProjected + of_head;
    static_for<kProjected>([&](auto n) { o.bias[n] = bias[n * channels]; });
    static_for<P>([&](auto n) { o.recurrent[n] = l.recurrent[n * m.width + channel]; });
    static_for<S>([&](auto s) { o.state[s] = state(row, channel)[s * m.width]; });
    o.norm_weight = l.cell_norm[channel];
  }
  PARARNN_DEVICE_FN void late(Operands& o, int row, int channel) const {
    o.gate = m.gate[Int(row) * m.width + channel];
  }
  /// A step of the cell, and the gated norm.
  PARARNN_DEVICE_FN float finish(const Operands& o, int row, int channel,
                                 const Vec<float, kProjected>& sums) const {
    Vec<float, U> u{};
    static_for<U>([&]<int I>(Index<I> n) {
      if constexpr ((Cell::kGiven >> I & 1) != 0) {
        u[n] = 1;
      } else {
        constexpr int kGroup = I - count_bits(Cell::kGiven & ((1u << I) - 1));
        u[n] = sums[kGroup] + o.bias[kGroup];
      }
    });
    const Vec<float, S> h = next_state<C>(o.state, u, o.recurrent);
    static_for<S>([&](auto s) { state(row, channel)[s * m.width] = h[s]; });
    store_bfloat16(m.y, Int(row) * m.width + channel, h[0] * o.norm_weight * o.gate);
    return h[0] * h[0];
  }
};

/// Adds the branch to the stream, for the norm that follows.
struct ResidualEnd {
  struct Operands {
    float scale, stream, norm_weight;
  };
  const DecodeModel& m;
  const float *scale, *norm_weight;

  PARARNN_DEVICE_FN void early(Operands& o, int row, int, int channel) const {
    o = {scale[channel], m.stream[Int(row) * m.width + channel], norm_weight[channel]};
  }
  PARARNN_DEVICE_FN void late(Operands&, int, int) const {}
  PARARNN_DEVICE_FN float finish(const Operands& o, int row, int channel,
                                 const Vec<float, 1>& sums) const {
    const Int at = Int(row) * m.width + channel;
    const float x = o.stream + o.scale * sums[0];
    m.stream[at] = x;
    store_bfloat16(m.x, at, o.norm_weight * x);
    return x * x;
  }
};

/// silu(gate) ⊙ value.
struct MlpInputEnd {
  struct Operands {};
  const DecodeModel& m;

  PARARNN_DEVICE_FN void early(Operands&, int, int, int) const {}
  PARARNN_DEVICE_FN void late(Operands&, int, int) const {}
  PARARNN_DEVICE_FN float finish(const Operands&, int row, int channel,
                                 const Vec<float, 2>& sums) const {
    store_bfloat16(m.activated, Int(row) * m.hidden + channel, silu(sums[0]) * sums[1]);
    return 0;
  }
};

struct LogitsEnd {
  struct Operands {};
  const DecodeModel& m;

  PARARNN_DEVICE_FN void early(Operands&, int, int, int) const {}
  PARARNN_DEVICE_FN void late(Operands&, int, int) const {}
  PARARNN_DEVICE_FN float finish(const Operands&, int row, int channel,
                                 const Vec<float, 1>& sums) const {
    m.logits[Int(row) * m.vocabulary + channel] = sums[0];
    return 0;
  }
};

/// What a product takes. Without squares it is not divided.
struct ProductInput {
  const void* x;  // bfloat16, (B, heads · depth)
  const float* squares = nullptr;
  int parts = 0;
};
/// Where the squares of what it gives go, in parts of each head; or nowhere.
struct ProductSquares {
  float* to = nullptr;
  int parts_of_head = 0;
};

template <class Cell, int kTaps, int kLayers, int kSlots, int kRowTiles, int kSplit, int kWide>
struct Decoder {
  static constexpr DecodePlan kPlan{kRowTiles, kSplit, kWide};
  static constexpr int kRows = kPlan.rows(), kRowsOfBlock = kPlan.rows_of_block();
  static constexpr int kColumns = kPlan.columns(), kDepthWarps = kPlan.depth_warps();
  static constexpr int kBarriers = kDecodeLayerKinds * kLayers + 1;
  static constexpr bool kHeld = kSplit > 1;  // x is held in shared memory for the columns
  // Pieces of x in a thread's registers.
  static constexpr int kAhead = kPlan.ahead(Cell::kProjected);
  static constexpr int kMostWeights = kPlan.most_weights(Cell::kProjected);

  struct Memory {
    // A thread's weights are its own all the way.
    uint4 weights[kSlots][kDecodeThreads];
    uint4 held[kPlan.held_words()];
    // A row's part of a tile, of each warp of the cluster.
    float sums[kSplit][kDecodeWarps][kMostWeights][kRowsOfBlock * kDecodeChannels];
    float inverse[64];
  };
  static_assert(sizeof(Memory) ==
                kSlots * DecodePlan::kSlotBytes + kPlan.other_bytes(Cell::kProjected));

  struct Inputs {
    uint4 row_tiles[kRowTiles][2];
  };

  const DecodeProblem<kLayers>& problem;
  Memory& memory;
  int cluster = static_cast<int>(blockIdx.x) / kSplit,
      clusters = static_cast<int>(gridDim.x) / kSplit;
  int rank = static_cast<int>(blockIdx.x) % kSplit;  // of the block in its cluster
  int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int column = warp % kColumns;
  int row_blocks = (problem.model.batch + kRows - 1) / kRows;
  // A warp takes pieces first, first + kStep, ... of the depth.
  static constexpr int kStep = kSplit * kDepthWarps;
  int first = rank * kDepthWarps + warp / kColumns;

  int slot = 0;       // of the weights that come next
  int owed = kSlots;  // slots that are free
  int filled = 0;     // the one that is filled next
  int turn = 0;       // of the product that is computed
  int barrier = 0;    // the next one

  /// The weights that are sent next: of tile `tile` of `group`, those of a piece.
  struct Stream {
    DecodeKind kind;
    int layer, turn;
    ProductShape shape;
    ProductUnits units;
    int first_channel, head, piece, group, tile;
  } stream = {kMixerInput, 0, 0, {}, {}, 0, 0, 0, 0, 0};

  PARARNN_DEVICE_FN void open_product() {
    stream.shape = shape_of(problem, stream.kind, stream.layer);
    stream.units = ProductUnits::of(stream.shape, kPlan.channels(stream.kind), row_blocks, cluster,
                                    clusters, stream.turn);
  }
  /// Goes on to a unit that is there, of which this warp has a part.
  PARARNN_DEVICE_FN void open_unit() {
    while (!stream.units.there() || first * kDecodeDepth >= stream.shape.depth) {
      if (stream.kind == kLogits) {
        stream.shape.weight = nullptr;
        return;
      }
      stream.turn = stream.units.next_turn(stream.turn);
      const bool last = stream.kind == kMlpOutput;
      stream.layer += last;
      stream.kind = last ? stream.layer < kLayers ? kMixerInput : kLogits
                         : static_cast<DecodeKind>(stream.kind + 1);
      open_product();
    }
    stream.head = stream.units.head();
    stream.first_channel = stream.units.of_channels() * kPlan.channels(stream.kind) +
                           column * kPlan.tiles(stream.kind) * kDecodeChannels + lane / 4;
    stream.piece = first;
    stream.group = stream.tile = 0;
  }
  PARARNN_DEVICE_FN void send_weights(uint4* to) {
    // Beyond the last channel: the last again, whose sums nobody stores.
    const int wanted = stream.first_channel + stream.tile * kDecodeChannels;
    const int channel = wanted < stream.shape.channels ? wanted : stream.shape.channels - 1;
    const int groups = groups_of<Cell>(stream.kind);
    const Int row = Int(stream.head * groups + stream.group) * stream.shape.channels + channel;
    cuda::copy_async(to, stream.shape.weight + row * stream.shape.depth +
                             stream.piece * kDecodeDepth + lane % 4 * 8);
    if (++stream.tile < kPlan.tiles(stream.kind)) return;
    stream.tile = 0;
    if (++stream.group < groups) return;
    stream.group = 0;
    stream.piece += kStep;
    if (stream.piece * kDecodeDepth < stream.shape.depth) return;
    stream.units.next();
    open_unit();
  }
  /// Sends weights to all slots that are free, or nothing if there are no more.
  PARARNN_DEVICE_FN void refill() {
#pragma unroll 1
    for (; owed > 0; --owed) {
      if (stream.shape.weight) send_weights(&memory.weights[filled][threadIdx.x]);
      cuda::commit_copies();
      filled = filled + 1 < kSlots ? filled + 1 : 0;
    }
  }

  /// All blocks have come, and what they have written is seen: between arrive and await a block may
  /// do what does not depend on the others.
  PARARNN_DEVICE_FN unsigned* barrier_word(int n) const {
    return problem.model.barriers + n * kDecodeBarrierWords;
  }
  PARARNN_DEVICE_FN void arrive() const {
    __syncthreads();
    if (threadIdx.x == 0) cuda::release_add(barrier_word(barrier), 1);
  }
  PARARNN_DEVICE_FN void await() {
    if (threadIdx.x == 0) {
      while (cuda::load_acquire(barrier_word(barrier)) < gridDim.x) cuda::let_others_run();
      // All have left the one before: it is ready for the next launch.
      if (blockIdx.x == 0) *barrier_word(barrier > 0 ? barrier - 1 : kBarriers - 1) = 0;
    }
    __syncthreads();
    ++barrier;
  }

  /// The stream is the embedding of the tokens.
  PARARNN_DEVICE_FN void embed() const {
    const DecodeModel& m = problem.model;
    const float* norm_weight = problem.layers[0].norm;
    const int parts = kPlan.parts(kMixerOutput, m.width);
    for (int row = static_cast<int>(blockIdx.x); row < m.batch;
         row += static_cast<int>(gridDim.x)) {
      const Int from = m.tokens[row] * m.width, to = Int(row) * m.width;
      float squares = 0;
      for (int i = threadIdx.x; i < m.width; i += kDecodeThreads) {
        const float x = load_bfloat16(m.embedding, from + i);
        m.stream[to + i] = x;
        store_bfloat16(m.x, to + i, norm_weight[i] * x);
        squares += x * x;
      }
      squares = sum_in_warp(squares);
      // One part for each warp, as far as there are parts, and zeros for the others.
      __syncthreads();
      if (lane == 0) memory.inverse[warp] = squares;
      __syncthreads();
      float sum = 0;
      for (int w = 0; w < kDecodeWarps; ++w) sum += memory.inverse[w];
      for (int part = threadIdx.x; part < parts; part += kDecodeThreads) {
        m.squares[Int(row) * parts + part] = part == 0 ? sum : 0;
      }
    }
  }

  /// Where a product reads its inputs.
  struct Source {
    const BFloat16* x;
    int row_length, first_row, pieces;  // of this warp
  };
  PARARNN_DEVICE_FN uint4 load_input(const Source& from, int row, int piece, int part) const {
    if (row >= problem.model.batch) return {};
    return *reinterpret_cast<const uint4*>(from.x + Int(row) * from.row_length +
                                           piece * kDecodeDepth + part * 8);
  }
  /// Pieces `begin` and more of those of this block.
  PARARNN_DEVICE_FN void hold_inputs(const Source& from, int begin) {
    constexpr int kTogether = 8;
    const int left = from.pieces - begin;
    const int words = (left < kDecodeHeldPieces ? left : kDecodeHeldPieces) * kRowTiles * 64;
    __syncthreads();  // what was held has been read
    for (int at = threadIdx.x; at < words; at += kTogether * kDecodeThreads) {
      uint4 some[kTogether];
      static_for<kTogether>([&](auto n) {
        const int word = at + n * kDecodeThreads;
        if (word >= words) return;
        const int tile = word / 64;
        const int row = from.first_row + tile % kRowTiles * kDecodeRows + word % 64 / 4;
        some[n] = load_input(from, row, first + (begin + tile / kRowTiles) * kStep, word % 4);
      });
      static_for<kTogether>([&](auto n) {
        const int word = at + n * kDecodeThreads;
        if (word < words) memory.held[word] = some[n];
      });
    }
    __syncthreads();
  }
  /// Piece `number` of those of this warp.
  PARARNN_DEVICE_FN void load_inputs(Inputs& x, const Source& from, int number) const {
    if (number >= from.pieces) return;
    static_for<kRowTiles>([&](auto t) {
      static_for<2>([&](auto half) {
        if constexpr (kHeld) {
          const int tile = number % kDecodeHeldPieces * kRowTiles + t;
          x.row_tiles[t][half] = memory.held[(tile * 2 + half) * kWarp + lane];
        } else {
          const int row = from.first_row + t * kDecodeRows + half * 8 + lane / 4;
          x.row_tiles[t][half] = load_input(from, row, first + number * kStep, lane % 4);
        }
      });
    });
  }

  /// The order of the depth within a piece is the loads': the same for weights and x. kBefore: how
  /// many pieces were taken since all slots were filled.
  template <int kBefore, int kWeights>
  PARARNN_DEVICE_FN void multiply(const Inputs& x, float (&sums)[kWeights][kRowTiles][4]) {
    static_assert(kSlots >= (kBefore + 1) * kWeights);
    cuda::wait_for_copies<kSlots - (kBefore + 1) * kWeights>();
    owed += kWeights;
    static_for<kWeights>([&](auto i) {
      const uint4 weight = memory.weights[slot][threadIdx.x];
      slot = slot + 1 < kSlots ? slot + 1 : 0;
      const unsigned w_first[2] = {weight.x, weight.y}, w_second[2] = {weight.z, weight.w};
      static_for<kRowTiles>([&](auto t) {
        const uint4 low = x.row_tiles[t][0], high = x.row_tiles[t][1];
        const unsigned first_half[4] = {low.x, high.x, low.y, high.y};
        const unsigned second_half[4] = {low.z, high.z, low.w, high.w};
        cuda::multiply_in_warp(first_half, w_first, sums[i][t]);
        cuda::multiply_in_warp(second_half, w_second, sums[i][t]);
      });
    });
  }

  /// The warps' sums to the blocks that end their rows.
  template <int kWeights>
  PARARNN_DEVICE_FN void hand_over(const float (&sums)[kWeights][kRowTiles][4]) const {
    static_for<kWeights>([&](auto i) {
      static_for<kRowTiles>([&](auto t) {
        static_for<2>([&](auto half) {
          const int row = t * kDecodeRows + half * 8 + lane / 4;
          float* to =
              &memory.sums[rank][warp][i][row % kRowsOfBlock * kDecodeChannels + lane % 4 * 2];
          cuda::store_in_cluster<kSplit>(to, row / kRowsOfBlock, sums[i][t][2 * half],
                                         sums[i][t][2 * half + 1]);
        });
      });
    });
  }

  /// A lane's share of the squares of the rows that this block ends, of which each warp has some.
  template <int kWarpRows>
  PARARNN_DEVICE_FN void load_squares(float (&mine)[kWarpRows], const ProductInput& input,
                                      int first_row) const {
    static_for<kWarpRows>([&](auto r) {
      const int i = warp + r * kDecodeWarps, row = first_row + rank * kRowsOfBlock + i;
      if (i >= kRowsOfBlock || row >= problem.model.batch) return;
      for (int part = lane; part < input.parts; part += kWarp) {
        mine[r] += input.squares[Int(row) * input.parts + part];
      }
    });
  }

  template <DecodeKind kKind, class End>
  PARARNN_DEVICE_FN void run(const ProductInput& input, const End& end, int layer,
                             const ProductSquares& squares = {}) {
    constexpr int kGroups = groups_of<Cell>(kKind), kTiles = kPlan.tiles(kKind);
    constexpr int kWeights = kGroups * kTiles, kChannels = kPlan.channels(kKind);
    constexpr int kEntries = kRowsOfBlock * kChannels;
    constexpr int kEnds = (kEntries + kDecodeThreads - 1) / kDecodeThreads;
    constexpr int kPart = kPlan.channels_of_part(kKind);
    constexpr int kWarpRows = (kRowsOfBlock + kDecodeWarps - 1) / kDecodeWarps;
    const DecodeModel& m = problem.model;
    const ProductShape shape = shape_of(problem, kKind, layer);
    ProductUnits units = ProductUnits::of(shape, kChannels, row_blocks, cluster, clusters, turn);
    turn = units.next_turn(turn);
    const int all_pieces = shape.depth / kDecodeDepth;
    typename End::Operands operands[kEnds];

    // Where this thread ends number n of a unit.
    struct Place {
      int row, of_head, channel;
      bool there;
    };
    const auto place = [&](int n) {
      const int at = static_cast<int>(threadIdx.x) + n * kDecodeThreads;
      const int row = units.row_block() * kRows + rank * kRowsOfBlock + at / kChannels;
      const int of_head = units.of_channels() * kChannels + at % kChannels;
      return Place{row, of_head, units.head() * shape.channels + of_head,
                   at < kEntries && row < m.batch && of_head < shape.channels};
    };
    bool met = false;
    int held = -1;  // the rows of x in shared memory, if all their pieces are there
    for (; units.there(); units.next()) {
      const int head = units.head(), first_row = units.row_block() * kRows;
      const Source from{static_cast<const BFloat16*>(input.x) + Int(head) * shape.depth,
                        shape.heads * shape.depth, first_row,
                        first < all_pieces ? (all_pieces - first + kStep - 1) / kStep : 0};
      float squares_of_rows[kWarpRows] = {};  // of those that this block ends
      float sums[kWeights][kRowTiles][4] = {};
      Inputs x[kAhead] = {};
      int begin = 0;
      do {
        refill();
        if (begin == 0) {
          static_for<kEnds>([&](auto n) {
            const Place p = place(n);
            if (p.there) end.early(operands[n], p.row, p.of_head, p.channel);
          });
          if (!met) await();
          met = true;
          if (!kHeld) {
            static_for<kAhead>([&](auto n) { load_inputs(x[n], from, n); });
          }
          static_for<kEnds>([&](auto n) {
            const Place p = place(n);
            if (p.there) end.late(operands[n], p.row, p.channel);
          });
          if (input.squares) load_squares(squares_of_rows, input, first_row);
        }
        if (kHeld) {
          if (begin % kDecodeHeldPieces == 0) {
            const int rows = head * row_blocks + units.row_block();
            if (rows != held) hold_inputs(from, begin);
            held = from.pieces <= kDecodeHeldPieces ? rows : -1;
          }
          static_for<kAhead>([&](auto n) { load_inputs(x[n], from, begin + n); });
        }
        static_for<kAhead>([&]<int N>(Index<N>) {
          if (begin + N >= from.pieces) return;
          multiply<N>(x[N], sums);
          if (!kHeld) load_inputs(x[N], from, begin + N + kAhead);
        });
        begin += kAhead;
      } while (begin < from.pieces);

      cuda::wait_for_cluster<kSplit>();  // the sums before have been read
      if (input.squares) {
        static_for<kWarpRows>([&](auto r) {
          const float sum = sum_in_warp(squares_of_rows[r]);
          const int i = warp + r * kDecodeWarps;
          if (lane == 0 && i < kRowsOfBlock) {
            memory.inverse[i] = 1 / sqrt(sum / m.width + m.epsilon);
          }
        });
      }
      hand_over(sums);
      cuda::come_to_cluster<kSplit>();
      cuda::wait_for_cluster<kSplit>();
      static_for<kEnds>([&](auto n) {
        const int at = static_cast<int>(threadIdx.x) + n * kDecodeThreads;
        const int local = at / kChannels, channel = at % kChannels;
        const int tile = channel / kDecodeChannels;
        const Place p = place(n);
        float square = 0;
        if (p.there) {
          Vec<float, kGroups> sum{};
          static_for<kGroups>([&](auto g) {
            static_for<kSplit>([&](auto s) {
              static_for<kDepthWarps>([&](auto w) {
                sum[g] += memory.sums[s][w * kColumns + tile / kTiles][g * kTiles + tile % kTiles]
                                     [local * kDecodeChannels + channel % kDecodeChannels];
              });
            });
            if (input.squares) sum[g] *= memory.inverse[local];
          });
          square = end.finish(operands[n], p.row, p.channel, sum);
        }
        if (squares.to) {
          for (int distance = kPart / 2; distance > 0; distance /= 2) {
            square += __shfl_xor_sync(0xffffffffu, square, distance);
          }
          if (threadIdx.x % kPart == 0 && at < kEntries && p.row < m.batch) {
            const Int parts = Int(squares.parts_of_head) * shape.heads;
            squares.to[p.row * parts + head * squares.parts_of_head + p.of_head / kPart] = square;
          }
        }
      });
      cuda::come_to_cluster<kSplit>();
    }
    if (!met) await();
    if (kKind != kLogits) arrive();
  }

  PARARNN_DEVICE_FN void step() {
    const DecodeModel& m = problem.model;
    cuda::come_to_cluster<kSplit>();
    open_product();
    open_unit();
    refill();
    embed();
    arrive();
    const int parts = kPlan.parts(kMixerOutput, m.width);
    const int parts_of_head = kPlan.parts(kProjection, m.width / m.heads);
    const ProductInput x{m.x, m.squares, parts};
    const ProductSquares squares{m.squares, parts};
#pragma unroll 1
    for (int layer = 0; layer < kLayers; ++layer) {
      const DecodeLayer& l = problem.layers[layer];
      run<kMixerInput>(x, MixerInputEnd<kTaps>{m, l}, layer);
      run<kProjection>({m.convolved}, ProjectionEnd<Cell>{m, l}, layer,
                       {m.y_squares, parts_of_head});
      run<kMixerOutput>({m.y, m.y_squares, parts_of_head * m.heads},
                        ResidualEnd{m, l.scale, l.mlp_norm}, layer, squares);
      run<kMlpInput>(x, MlpInputEnd{m}, layer);
      const float* next = layer + 1 < kLayers ? problem.layers[layer + 1].norm : m.norm;
      run<kMlpOutput>({m.activated}, ResidualEnd{m, l.mlp_scale, next}, layer, squares);
    }
    run<kLogits>(x, LogitsEnd{m}, 0);
    cuda::wait_for_cluster<kSplit>();  // no block leaves while others write to its memory
  }
};

/// A grid of as many blocks as there is room for at once.
template <class C, unsigned kGiven, int kTaps, int kLayers, int kSlots, int kRowTiles, int kSplit,
          int kWide>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_step(const __grid_constant__ DecodeProblem<kLayers> problem) {
  using D = Decoder<DecodedCell<C, kGiven>, kTaps, kLayers, kSlots, kRowTiles, kSplit, kWide>;
  PARARNN_LAUNCHED_SHARED(typename D::Memory, memory);
  D{problem, memory}.step();
}

}  // namespace pararnn::ops
