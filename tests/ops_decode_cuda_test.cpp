// The GPU's kernel that decodes, on the host (cuda_on_host.hpp): its steps are the definition's.
#include <gtest/gtest.h>
#include <torch/types.h>

#include "cells/cell_registry.hpp"
#include "decode_test_support.hpp"
#include "ops/decode/decode.hpp"
#include "ops/decode/decode_cuda.hpp"
#include "pararnn/cells.hpp"

// Redefines names of the C++ library, so it comes last.
#include "ops/decode/decode_kernel.hpp"

namespace pararnn::ops {
namespace {

namespace catalogue {
#include "../examples/cells/gru_d.hpp"
}

using test::DecodedSizes;
using torch::Tensor;

/// Relative to the largest number. What is rounded to bfloat16 on the way may be rounded another
/// way where the sums differ in their last bits.
void expect_near(const Tensor& got, const Tensor& expected, const char* what) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const Tensor a = got.to(torch::kDouble), b = expected.to(torch::kDouble);
  EXPECT_LE((a - b).abs().max().item<double>(), 1e-2 * (1 + b.abs().max().item<double>())) << what;
  // Of most numbers none was.
  EXPECT_LE((a - b).abs().median().item<double>(), 1e-3) << what;
}

/// Two steps of a model by so many blocks.
template <class C, unsigned kGiven, int kTaps, int kLayers, int kSlots, int kRowTiles, int kSplit,
          int kWide>
void expect_decode_step(const CellDefinition& cell, const DecodedSizes& size, int64_t batch,
                        int blocks) {
  SCOPED_TRACE(testing::Message() << cell.name << ", " << batch << " rows, width " << size.width
                                  << ", " << blocks << " blocks in clusters of " << kSplit);
  const DecodedModel expected = test::random_decoded_model(cell, size, batch);
  const DecodedModel model = test::map_tensors(expected, [](const Tensor& t) { return t.clone(); });
  const DecodePlan plan{kRowTiles, kSplit, kWide};
  // Memory in which what is not written is found.
  const auto unwritten = [&](int64_t columns, torch::ScalarType dtype) {
    return torch::full({batch, columns}, std::numeric_limits<double>::quiet_NaN(), dtype);
  };
  const Tensor stream = unwritten(size.width, torch::kFloat),
               gate = unwritten(size.width, torch::kFloat),
               x = unwritten(size.width, torch::kBFloat16),
               y = unwritten(size.width, torch::kBFloat16),
               convolved = unwritten(size.width, torch::kBFloat16),
               activated = unwritten(size.hidden, torch::kBFloat16),
               squares = unwritten(plan.parts(kMixerOutput, int(size.width)), torch::kFloat),
               y_squares =
                   unwritten(size.heads * plan.parts(kProjection, int(size.width / size.heads)),
                             torch::kFloat);
  const Tensor barriers =
      torch::zeros({kDecodeLayerKinds * kLayers + 1, kDecodeBarrierWords}, torch::kInt);
  const auto numbers = [](const Tensor& t) { return t.data_ptr<float>(); };
  for (int number = 0; number < 2; ++number) {
    const Tensor tokens = torch::randint(size.vocabulary, {batch}, torch::kLong);
    const Tensor right = torch::empty({batch, size.vocabulary});
    decode_step_definition(expected, tokens, right);
    const Tensor logits = unwritten(size.vocabulary, torch::kFloat);
    DecodeProblem<kLayers> problem{
        .model = {.batch = int(batch),
                  .width = int(size.width),
                  .heads = int(size.heads),
                  .hidden = int(size.hidden),
                  .vocabulary = int(size.vocabulary),
                  .epsilon = float(model.epsilon),
                  .tokens = reinterpret_cast<const long long*>(tokens.data_ptr<int64_t>()),
                  .embedding = model.embedding.data_ptr(),
                  .norm = numbers(model.norm),
                  .output = model.output.data_ptr(),
                  .logits = numbers(logits),
                  .stream = numbers(stream),
                  .x = x.data_ptr(),
                  .squares = numbers(squares),
                  .convolved = convolved.data_ptr(),
                  .gate = numbers(gate),
                  .y = y.data_ptr(),
                  .y_squares = numbers(y_squares),
                  .activated = activated.data_ptr(),
                  .barriers = reinterpret_cast<unsigned*>(barriers.data_ptr<int>())},
        .layers = {}};
    for (int i = 0; i < kLayers; ++i) problem.layers[i] = decode_layer_of(model.layers[size_t(i)]);
    fibers::machine.run({.blocks = blocks, .threads = kDecodeThreads, .cooperative = true}, [&] {
      decode_step<C, kGiven, kTaps, kLayers, kSlots, kRowTiles, kSplit, kWide>(problem);
    });
    expect_near(logits, right, "logits");
    for (int i = 0; i < kLayers; ++i) {
      const DecodedLayer &got = model.layers[size_t(i)], &wanted = expected.layers[size_t(i)];
      expect_near(got.state, wanted.state, "state");
      if (kTaps > 1) expect_near(got.before, wanted.before, "before");
    }
  }
}

// One row and several; more blocks than units of a product, and fewer; channels and vocabularies
// that fill no unit; several heads; rings that hold little more than a warp takes at once, and more
// than a product.
TEST(DecodeOnFibers, FewRows) {
  torch::manual_seed(1);
  expect_decode_step<Gru, 0, 4, 2, 16, 1, 1, 1>(find_cell("gru"), {.heads = 2, .layers = 2}, 1, 3);
  expect_decode_step<Lstm, 0, 2, 1, 40, 1, 1, 1>(
      find_cell("lstm"), {.width = 96, .hidden = 1120, .vocabulary = 33, .taps = 2}, 16, 5);
  // Rows beyond those of a unit, as without clusters.
  expect_decode_step<Gru, 0, 1, 1, 17, 1, 1, 1>(find_cell("gru"),
                                                {.width = 32, .hidden = 32, .taps = 1}, 19, 14);
}

TEST(DecodeOnFibers, InputsThatAreGiven) {
  torch::manual_seed(2);
  const CellDefinition& given =
      register_cell(read_cell(PARARNN_SOURCE "/examples/cells/gru_d.hpp"));
  expect_decode_step<catalogue::GruD, 0b11000, 4, 1, 16, 1, 1, 1>(given, {}, 3, 2);
}

// Clusters that share the depth, of which some blocks may have nothing; more pieces of x than a
// block holds at once; rows that fill no tile, and several units of rows.
TEST(DecodeOnFibers, Clusters) {
  torch::manual_seed(3);
  expect_decode_step<Gru, 0, 4, 2, 8, 2, 2, 1>(find_cell("gru"), {.heads = 2, .layers = 2}, 17, 4);
  expect_decode_step<LstmCifg, 0, 4, 1, 13, 2, 2, 2>(
      find_cell("lstm_cifg"), {.width = 32, .hidden = 1632, .vocabulary = 300}, 20, 2);
  expect_decode_step<Gru, 0, 4, 1, 9, 4, 8, 1>(find_cell("gru"), {.width = 32, .hidden = 32}, 100,
                                               8);
}

}  // namespace
}  // namespace pararnn::ops
