// What the kernels of decode_kernel.hpp take. B rows of a batch, d channels.
#pragma once

namespace pararnn::ops {

/// Threads of a block of every kernel that decodes.
inline constexpr int kDecodeThreads = 256;
/// A tile of rows of the batch, and of rows of the weights. Of more rows of the batch than a tile's
/// the products are the library's.
inline constexpr int kDecodeRows = 16, kDecodeChannels = 8;
/// Numbers of a row of weights that a warp takes at once: rows are multiples of it.
inline constexpr int kDecodeDepth = 32;

/// The product that each kernel begins with: for each channel c of a head and each group g
///   sum[g] = 1 / rms[b] Σ_k weight[head (groups · channels) + g · channels + c][k]
///                           x[b][head · head_stride + k].
/// rms² is the mean of what `squares` adds up to, over `width`, plus epsilon; without squares it
/// is 1.
struct DecodeProduct {
  int batch, heads, channels, depth;
  const void* weight;    // bfloat16, rows of `depth` numbers
  const void* x;         // bfloat16, (B,width)
  const float* squares;  // (B,parts)
  int parts, width;
  int head_stride;  // `depth`, or 0 where all heads take the same x
  float epsilon;
  /// Of a product that was made before, without the factor; otherwise null.
  const float* sums;  // (B, heads, groups · channels), with these strides of rows and heads
  int sums_row, sums_head;
};

/// Sums of squares, a part from each block, for the norm that follows.
struct DecodeSquares {
  float* to;  // (B,parts)
  int parts;
};

/// The first product's input: stream = embedding[token].
struct DecodeEmbedding {
  int width;
  const long long* tokens;   // (B)
  const void* embedding;     // bfloat16, (V,d)
  const float* norm_weight;  // (d)
  float* stream;             // (B,d)
  void* next;                // bfloat16, (B,d): norm_weight ⊙ stream
  float* squares;            // (B,1)
};

/// A causal convolution of `width` channels.
struct DecodeTaps {
  int taps, width;
  const float* weight;  // (taps,width)
  void* before;         // bfloat16, (B,taps-1,width): the inputs before, moved on by one
};

/// The branch through the convolution, and silu(gate). Groups: branch, gate.
struct DecodeConvolution {
  DecodeTaps taps;
  void* convolved;  // bfloat16, (B,d)
  float* gate;      // (B,d)
};

/// A step of the cell, and the gated norm but for its factor 1 / rms. Groups: the cell's inputs
/// that are projected.
struct DecodeCell {
  const float* bias;         // (heads, groups · channels)
  const float* recurrent;    // (P,d)
  float* state;              // (B,S,d)
  const float* norm_weight;  // (d)
  const float* gate;         // (B,d)
  void* next;                // bfloat16, (B,d)
  DecodeSquares squares;     // of the outputs
};

/// Adds the branch to the stream. One group.
struct DecodeResidual {
  const float* scale;        // (d)
  float* stream;             // (B,d)
  const float* norm_weight;  // (d), of the norm that follows
  void* next;                // bfloat16, (B,d): norm_weight ⊙ stream
  DecodeSquares squares;     // of the stream
};

/// silu(gate) ⊙ value. Groups: gate, value.
struct DecodeSwiglu {
  void* next;  // bfloat16, (B,channels)
};

/// One group.
struct DecodeLogits {
  float* logits;  // (B,V)
};

template <class End>
struct DecodeProblem {
  DecodeProduct product;
  End end;
};

}  // namespace pararnn::ops
