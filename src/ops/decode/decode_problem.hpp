// What the kernel of decode_kernel.hpp takes: a language model of RNNs that reads one token of each
// of B rows. d channels of H heads, m hidden channels of the MLP, V tokens, K taps.
#pragma once

namespace pararnn::ops {

/// Threads of a block.
inline constexpr int kDecodeThreads = 256, kDecodeWarps = kDecodeThreads / 32;
/// A tile of a product: so many rows of the batch, and so many rows of weights.
inline constexpr int kDecodeRows = 16, kDecodeChannels = 8;
/// Numbers of a row of weights that a warp takes at once, a piece: rows are multiples of it.
inline constexpr int kDecodeDepth = 32;
/// Pieces of the depth of x that a block of a cluster holds at once.
inline constexpr int kDecodeHeldPieces = 24;
/// Words from one barrier to the next, so that each has a line of the cache.
inline constexpr int kDecodeBarrierWords = 32;

/// The products of a layer, in their order, and that with the vocabulary.
enum DecodeKind { kMixerInput, kProjection, kMixerOutput, kMlpInput, kMlpOutput, kLogits };
inline constexpr int kDecodeLayerKinds = 5;

/// How the products are cut, for all layers: tiles of rows that a block takes at once; blocks of a
/// cluster, which share the depth; and, for clusters, how many tiles of channels a warp takes of
/// products whose channels are few.
struct DecodePlan {
  int row_tiles, split, wide;

  constexpr int rows() const { return row_tiles * kDecodeRows; }
  /// Rows that each block of a cluster ends.
  constexpr int rows_of_block() const { return rows() / split; }
  /// Warps with channels of their own; those of one column share the depth.
  constexpr int columns() const { return split > 1 ? kDecodeWarps : 1; }
  constexpr int depth_warps() const { return kDecodeWarps / columns(); }
  /// Tiles of channels of each group that a warp takes at once.
  constexpr int tiles(DecodeKind kind) const {
    if (kind == kLogits) return 4;
    if (kind == kProjection || split == 1) return 1;
    return kind == kMlpInput ? 2 : wide;
  }
  constexpr int channels(DecodeKind kind) const {
    return columns() * tiles(kind) * kDecodeChannels;
  }
  /// How many neighbouring channels are one part of a row's squares.
  constexpr int channels_of_part(DecodeKind kind) const {
    return channels(kind) < 32 ? channels(kind) : 32;
  }
  /// Into how many parts the squares of so many channels come.
  constexpr int parts(DecodeKind kind, int of_head) const {
    return (of_head + channels(kind) - 1) / channels(kind) *
           (channels(kind) / channels_of_part(kind));
  }
  /// The most tiles of weights that a warp takes at once, of a cell with so many projected inputs.
  constexpr int most_weights(int inputs) const {
    const int of_pairs = 2 * (wide > 2 ? wide : 2);
    return inputs > of_pairs ? inputs : of_pairs;
  }
  /// Pieces of x that a thread holds.
  constexpr int ahead(int inputs) const {
    if (split > 1) return row_tiles > 2 ? 1 : 2;
    return most_weights(inputs) > 8 ? 1 : 4;
  }
  /// Words of x that a block holds for all its warps.
  constexpr int held_words() const { return split > 1 ? kDecodeHeldPieces * row_tiles * 64 : 1; }
  /// Bytes of shared memory, but for the weights on their way.
  constexpr int other_bytes(int inputs) const {
    const int sums = split * kDecodeWarps * most_weights(inputs) * rows_of_block();
    return held_words() * 16 + sums * kDecodeChannels * 4 + 64 * 4;
  }
  /// Of a slot for a tile of weights of each warp.
  static constexpr int kSlotBytes = kDecodeThreads * 16;
};

/// Matrices are bfloat16, all else float.
struct DecodeLayer {
  // By the product's kind: (2d,d) for branch and gate; (H,U·d/H,d/H) for the U inputs of the cell
  // that are projected; (d,d); (2m,d) for gate and value; (d,m).
  const void* weights[kDecodeLayerKinds];
  const float* norm;       // (d), before the mixer
  const float* taps;       // (K,d)
  void* before;            // bfloat16, (B,K-1,d): the inputs before, moved on by one
  const float* bias;       // (H,U·d/H)
  const float* recurrent;  // (P,d)
  float* state;            // (B,S,d)
  const float* cell_norm;  // (d)
  const float* scale;      // (d), of the mixer's output
  const float* mlp_norm;   // (d)
  const float* mlp_scale;  // (d)
};

struct DecodeModel {
  int batch, width, heads, hidden, vocabulary;
  float epsilon;
  const long long* tokens;  // (B)
  const void* embedding;    // (V,d)
  const float* norm;        // (d), the last one
  const void* output;       // (V,d)
  float* logits;            // (B,V)
  // From one product to another. An RMSNorm is weight ⊙ v, in bfloat16, and the sums of v² in
  // parts: 1 / rms follows the product.
  float* stream;       // (B,d)
  void* x;             // (B,d), of the stream
  float* squares;      // (B,parts)
  void* convolved;     // (B,d)
  float* gate;         // (B,d), silu of it
  void* y;             // (B,d), of the cell's output, times the gate
  float* y_squares;    // (B,parts)
  void* activated;     // (B,m)
  unsigned* barriers;  // one for each product; zeros before the first launch
};

template <int kLayers>
struct DecodeProblem {
  DecodeModel model;
  DecodeLayer layers[kLayers];
};

}  // namespace pararnn::ops
