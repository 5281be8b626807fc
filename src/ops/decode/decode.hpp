// The parts of a language model that reads one token of each of B rows: the products, each
// with what follows it up to the next one. On a GPU each is one kernel (decode_kernel.hpp); on a
// CPU its definition in LibTorch's operations runs.
//
// Matrices and what is multiplied by them are bfloat16, as (rows, depth) and contiguous; all else
// is float32: the stream, the states, biases, norms. Depths are multiples of kDecodeMultiple.
#pragma once

#include <torch/types.h>

#include "cells/cell_definition.hpp"

namespace pararnn::ops {

/// Of which depths are multiples.
inline constexpr int64_t kDecodeMultiple = 32;

/// What a product takes: x (B,K), bfloat16, and the sums of squares whose root its rows are divided
/// by, in parts (B,parts) that are to be added up. Undefined: not divided.
/// An RMSNorm of v with weight g: x = g ⊙ v, squares those of v, 1 / sqrt(squares / width +
/// epsilon).
struct DecodeInput {
  torch::Tensor x, squares = {};
  double epsilon = 0;
};

/// The product with weight (rows,K) by LibTorch's operations, with the norm's factor: (B,rows),
/// float32.
torch::Tensor product_of(const DecodeInput& input, const torch::Tensor& weight);
/// What a product takes of an RMSNorm of v (B,K), likewise.
DecodeInput input_of_norm(const torch::Tensor& v, const torch::Tensor& weight, double epsilon);

/// Sets the stream (B,d) to the embeddings (V,d) of the tokens (B), int64; returns it for the norm.
DecodeInput decode_embedding(const torch::Tensor& tokens, const torch::Tensor& embedding,
                             const torch::Tensor& norm_weight, double epsilon,
                             const torch::Tensor& stream);

/// weight (2d,d), for branch and gate. Returns the branch through the convolution with its taps
/// (K,d) after the inputs `before` (B,K-1,d), bfloat16, which move on by one, and silu(gate) (B,d),
/// float32.
std::pair<torch::Tensor, torch::Tensor> decode_convolution(const DecodeInput& input,
                                                           const torch::Tensor& weight,
                                                           const torch::Tensor& taps,
                                                           const torch::Tensor& before);

/// weight (H, U·d/H, d/H), bias (H, U·d/H), for the U inputs of the cell that are projected; the
/// others are 1. Takes a step of the cell with the recurrent weights (P,d), advancing its state
/// (B,S,d). Returns the output y for the norm, times the gate (B,d).
DecodeInput decode_cell(const torch::Tensor& x, const torch::Tensor& weight,
                        const torch::Tensor& bias, const torch::Tensor& recurrent,
                        const torch::Tensor& state, const CellDefinition& cell,
                        const torch::Tensor& norm_weight, double epsilon,
                        const torch::Tensor& gate);

/// weight (d,K). Adds scale (d) ⊙ product to the stream (B,d); returns it for the norm that
/// follows.
DecodeInput decode_residual(const DecodeInput& input, const torch::Tensor& weight,
                            const torch::Tensor& scale, const torch::Tensor& stream,
                            const torch::Tensor& norm_weight, double epsilon);

/// weight (2m,d), for gate and value -> silu(gate) ⊙ value, (B,m), bfloat16.
torch::Tensor decode_swiglu(const DecodeInput& input, const torch::Tensor& weight);

/// weight (V,d). Writes logits (B,V), float32.
void decode_logits(const DecodeInput& input, const torch::Tensor& weight,
                   const torch::Tensor& logits);

}  // namespace pararnn::ops
