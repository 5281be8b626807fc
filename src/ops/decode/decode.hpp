// A language model of RNNs that reads one token of each of B rows. On a GPU a step is one kernel
// (decode_kernel.hpp); on a CPU its definition in LibTorch's operations runs.
//
// d channels of H heads, m hidden channels of the MLP, V tokens. Matrices are bfloat16, (rows,
// depth), and all else is float32: the stream, the states, biases, norms; all are contiguous.
// d/H and m are multiples of 32.
#pragma once

#include <torch/types.h>

#include <functional>
#include <vector>

#include "cells/cell_definition.hpp"

namespace pararnn::ops {

/// A mixer and an MLP, each after a norm (d) and added to the stream with a scale (d).
struct DecodedLayer {
  torch::Tensor norm;
  torch::Tensor input;   // (2d,d), for the branch through convolution and cell, and the gate
  torch::Tensor taps;    // (K,d), of the convolution
  torch::Tensor before;  // (B,K-1,d), bfloat16: its inputs before, which a step moves on by one
  // (H,U·d/H,d/H) and (H,U·d/H), for the U inputs of the cell that are projected; others are 1.
  torch::Tensor projection, bias;
  torch::Tensor recurrent;  // (P,d)
  torch::Tensor state;      // (B,S,d), which a step advances
  torch::Tensor cell_norm;  // (d), of the cell's output, which the gate's silu follows
  torch::Tensor output;     // (d,d)
  torch::Tensor scale;
  torch::Tensor mlp_norm;
  torch::Tensor mlp_input;   // (2m,d), for gate and value
  torch::Tensor mlp_output;  // (d,m)
  torch::Tensor mlp_scale;
};

struct DecodedModel {
  const CellDefinition* cell;
  double epsilon;           // of the norms
  torch::Tensor embedding;  // (V,d)
  std::vector<DecodedLayer> layers;
  torch::Tensor norm, output;  // (d); (V,d)
};

/// Reads tokens (B), int64, and writes logits (B,V), float32. The state is the model's.
using DecodeStep = std::function<void(const torch::Tensor& tokens, const torch::Tensor& logits)>;

/// Steps of a model with at least one layer, for `batch` rows, one after another on one stream.
/// Throws Error if the depth of a product is no multiple of 32.
DecodeStep make_decode_step(const DecodedModel& model, int64_t batch);

/// One step in LibTorch's operations: the definition.
void decode_step_definition(const DecodedModel& model, const torch::Tensor& tokens,
                            const torch::Tensor& logits);

}  // namespace pararnn::ops
