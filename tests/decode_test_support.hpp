// Models that decode, with random numbers.
#pragma once

#include <torch/types.h>

#include "cells/cell_definition.hpp"
#include "ops/decode/decode.hpp"

namespace pararnn::test {

struct DecodedSizes {
  int64_t width = 64, heads = 1, hidden = 96, vocabulary = 50, layers = 1, taps = 4;
};

/// On the CPU, with the state of so many rows.
inline ops::DecodedModel random_decoded_model(const CellDefinition& cell, const DecodedSizes& size,
                                              int64_t batch) {
  const auto matrix = [](torch::IntArrayRef shape) {
    return (torch::randn(shape) / std::sqrt(double(shape.back()))).to(torch::kBFloat16);
  };
  const auto norm = [&] { return 1 + torch::randn({size.width}) / 4; };
  const int64_t d = size.width, channels = d / size.heads;
  const int64_t inputs = cell.inputs - int64_t(cell.side_inputs.size());
  ops::DecodedModel model{.cell = &cell,
                          .epsilon = 1e-5,
                          .embedding = torch::randn({size.vocabulary, d}).to(torch::kBFloat16),
                          .layers = {},
                          .norm = norm(),
                          .output = matrix({size.vocabulary, d})};
  for (int64_t i = 0; i < size.layers; ++i) {
    model.layers.push_back({.norm = norm(),
                            .input = matrix({2 * d, d}),
                            .taps = torch::randn({size.taps, d}) / 2,
                            .before = torch::randn({batch, size.taps - 1, d}).to(torch::kBFloat16),
                            .projection = matrix({size.heads, inputs * channels, channels}),
                            .bias = torch::randn({size.heads, inputs * channels}),
                            .recurrent = torch::rand({cell.params, d}) / 2,
                            .state = 0.1 + torch::rand({batch, cell.state, d}),
                            .cell_norm = norm(),
                            .output = matrix({d, d}),
                            .scale = norm(),
                            .mlp_norm = norm(),
                            .mlp_input = matrix({2 * size.hidden, d}),
                            .mlp_output = matrix({d, size.hidden}),
                            .mlp_scale = norm()});
  }
  return model;
}

/// Each tensor of a model, such as its copy.
template <class F>
ops::DecodedModel map_tensors(const ops::DecodedModel& model, const F& f) {
  ops::DecodedModel result{.cell = model.cell,
                           .epsilon = model.epsilon,
                           .embedding = f(model.embedding),
                           .layers = {},
                           .norm = f(model.norm),
                           .output = f(model.output)};
  for (const ops::DecodedLayer& l : model.layers) {
    result.layers.push_back({f(l.norm), f(l.input), f(l.taps), f(l.before), f(l.projection),
                             f(l.bias), f(l.recurrent), f(l.state), f(l.cell_norm), f(l.output),
                             f(l.scale), f(l.mlp_norm), f(l.mlp_input), f(l.mlp_output),
                             f(l.mlp_scale)});
  }
  return result;
}

}  // namespace pararnn::test
