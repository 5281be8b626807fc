// The modules of a language model: their gradients equal finite differences, and pieces joined by
// the state equal the whole.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <vector>

#include "cells/cell_registry.hpp"
#include "gradient_test_support.hpp"
#include "nn/block.hpp"
#include "nn/causal_convolution.hpp"

using namespace pararnn;
using namespace pararnn::nn;
using test::expect_gradient;
using test::leaf;
using torch::Tensor;

namespace {

TEST(Gradient, BlockOfEveryCell) {
  torch::manual_seed(6);
  for (const CellDefinition& cell : built_in_cells()) {
    for (const int64_t heads : {1, 2}) {
      SCOPED_TRACE(std::string(cell.name) + " heads " + std::to_string(heads));
      const ModelConfig config{
          .width = 8, .layers = 1, .rnn = {.cell = std::string(cell.name), .heads = heads}};
      auto block = std::make_shared<Block>(config);
      block->to(torch::kDouble);
      const Tensor x = leaf({2, 6, 8});
      std::vector<Tensor> inputs{x};
      for (const Tensor& parameter : block->parameters()) inputs.push_back(parameter);
      expect_gradient([&] { return block->forward({.x = x}, {}, {}).first.sum(); }, inputs);
    }
  }
}

TEST(Gradient, ThroughTheState) {
  torch::manual_seed(7);
  for (const CellDefinition& cell : built_in_cells()) {
    SCOPED_TRACE(cell.name);
    const ModelConfig config{.width = 6, .layers = 1, .rnn = {.cell = std::string(cell.name)}};
    auto mixer = make_mixer(config, 0);
    mixer->to(torch::kDouble);
    const Tensor x = leaf({2, 5, 6});
    // Two pieces joined by the state; then all of it again, through which alone the first piece is
    // reached.
    expect_gradient(
        [&] {
          const auto [y, state] = mixer->forward(x.narrow(1, 0, 2), {}, {});
          return mixer->forward(x.narrow(1, 2, 3), state, {}).first;
        },
        {x});
  }
}

TEST(Convolution, PiecesEqualTheWhole) {
  torch::manual_seed(9);
  for (const int64_t taps : {1, 4}) {
    for (const Tensor& reset : {Tensor(), torch::rand({2, 20}) < 0.3}) {
      CausalConvolution convolution(7, taps);
      const Tensor x = torch::randn({2, 20, 7});
      const auto [whole, tail] = convolution.forward(x, {}, reset);
      Tensor before;
      std::vector<Tensor> pieces;
      for (int64_t begin = 0, length = 1; begin < 20; begin += length, ++length) {
        length = std::min(length, 20 - begin);
        const auto part = [&](const Tensor& t) {
          return t.defined() ? t.narrow(1, begin, length) : t;
        };
        auto [y, next] = convolution.forward(part(x), before, part(reset));
        pieces.push_back(y);
        before = next;
      }
      EXPECT_TRUE(torch::equal(torch::cat(pieces, 1), whole));
      EXPECT_TRUE(torch::equal(before, tail));
    }
  }
}

TEST(Convolution, ReadsWhatStartsAnewAsIfAlone) {
  torch::manual_seed(10);
  CausalConvolution convolution(7, 4);
  const Tensor x = torch::randn({1, 20, 7});
  const int64_t starts[] = {0, 3, 4, 13, 20};
  Tensor reset = torch::zeros({1, 20}, torch::kBool);
  std::vector<Tensor> alone;
  for (int i = 0; i < 4; ++i) {
    reset[0][starts[i]] = true;
    alone.push_back(
        convolution.forward(x.narrow(1, starts[i], starts[i + 1] - starts[i]), {}).first);
  }
  const Tensor before = torch::randn({1, 3, 7});
  EXPECT_TRUE(torch::equal(convolution.forward(x, before, reset).first, torch::cat(alone, 1)));
}

}  // namespace
