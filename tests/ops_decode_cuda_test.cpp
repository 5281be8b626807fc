// The GPU's kernels that decode, on the host (cuda_on_host.hpp): each equals its definition.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "cells/cell_registry.hpp"
#include "ops/decode/decode.hpp"
#include "ops/decode/decode_attention.hpp"
#include "ops/decode/decode_mamba2.hpp"
#include "ops/rotary/rotary_problem.hpp"
#include "pararnn/cells.hpp"

// Redefines names of the C++ library, so it comes last.
#include "ops/decode/decode_attention_kernel.hpp"
#include "ops/decode/decode_kernel.hpp"
#include "ops/decode/decode_mamba2_kernel.hpp"

namespace pararnn::ops {
namespace {

namespace catalogue {
#include "../examples/cells/gru_d.hpp"
}

using torch::Tensor;

Tensor halves(torch::IntArrayRef shape) { return torch::randn(shape).to(torch::kBFloat16); }

/// Memory in which what is not written is found.
Tensor unwritten_like(const Tensor& t) {
  return torch::full_like(t, std::numeric_limits<double>::quiet_NaN());
}

float* numbers_of(const Tensor& t) { return t.data_ptr<float>(); }

/// bfloat16 may round another way where the sums differ in their last bits.
void expect_near(const Tensor& got, const Tensor& expected, const char* what) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const double tolerance = expected.scalar_type() == torch::kBFloat16 ? 8e-3 : 2e-5;
  const Tensor a = got.to(torch::kDouble), b = expected.to(torch::kDouble);
  EXPECT_LE((a - b).abs().max().item<double>(), tolerance * (1 + b.abs().max().item<double>()))
      << what;
}

/// A kernel's launch for rows of a batch: x (B, heads · depth) and what it is multiplied by.
template <int kTiles, int kColumns, bool kOwnProduct>
struct DecodeOnFibers {
  DecodeOnFibers(const DecodeInput& input, const Tensor& weight, int64_t groups, int64_t heads = 1)
      : batch(input.x.size(0)) {
    const int64_t depth = weight.size(-1), channels = weight.numel() / depth / heads / groups;
    const int64_t a_block = kTiles * kColumns * kDecodeChannels;
    const int64_t rows = kOwnProduct ? kDecodeRows : kDecodeThreads / a_block;
    blocks = (channels + a_block - 1) / a_block;
    grid = {.blocks = int(blocks),
            .rows_of_blocks = int(heads * ((batch + rows - 1) / rows)),
            .threads = kDecodeThreads};
    product = {.batch = int(batch),
               .heads = int(heads),
               .channels = int(channels),
               .depth = int(depth),
               .weight = weight.data_ptr(),
               .x = input.x.data_ptr(),
               .squares = input.squares.defined() ? numbers_of(input.squares) : nullptr,
               .parts = input.squares.defined() ? int(input.squares.size(1)) : 0,
               .width = int(input.x.size(1)),
               .head_stride = input.x.size(1) == depth ? 0 : int(depth),
               .epsilon = float(input.epsilon),
               .sums = nullptr,
               .sums_row = 0,
               .sums_head = 0};
    if (!kOwnProduct) {
      const Tensor x = input.x.view({batch, -1, depth}).expand({-1, heads, -1});
      sums = torch::einsum("bhk,hnk->hbn",
                           {x.to(torch::kFloat), weight.view({heads, -1, depth}).to(torch::kFloat)})
                 .contiguous();
      product.sums = numbers_of(sums);
      product.sums_row = int(sums.stride(1));
      product.sums_head = int(sums.stride(0));
    }
    const int64_t parts = heads * blocks * a_block / std::min<int64_t>(a_block, kWarp);
    squares = torch::full({batch, parts}, std::numeric_limits<float>::quiet_NaN());
  }
  DecodeSquares squares_to() const { return {numbers_of(squares), int(squares.size(1))}; }
  template <class End>
  void run(void (*kernel)(DecodeProblem<End>), const End& end) const {
    fibers::machine.run(grid, [&] { kernel({product, end}); });
  }

  int64_t batch, blocks;
  cuda::Grid grid;
  DecodeProduct product;
  Tensor squares, sums;
};

constexpr double kEpsilon = 1e-5;

/// x whose norm's factor is still to come, from parts.
DecodeInput input_of(int64_t batch, int64_t width) {
  return {halves({batch, width}), torch::rand({batch, 3}) * double(width), kEpsilon};
}

template <int kTiles, int kColumns, bool kOwnProduct>
void expect_decode_convolution(int64_t batch, int64_t width, int64_t taps) {
  SCOPED_TRACE(testing::Message() << batch << " rows of " << width << ", taps " << taps);
  const DecodeInput input = input_of(batch, width);
  const Tensor weight = halves({2 * width, width}) / 8, tap_weights = torch::randn({taps, width});
  const Tensor before = halves({batch, taps - 1, width}), expected_before = before.clone();
  const auto [expected, expected_gate] =
      decode_convolution(input, weight, tap_weights, expected_before);
  const Tensor convolved = unwritten_like(expected), gate = unwritten_like(expected_gate);
  DecodeOnFibers<kTiles, kColumns, kOwnProduct>(input, weight, 2)
      .run(&decode_convolution<kTiles, kColumns, kOwnProduct>,
           DecodeConvolution{{int(taps), int(width), numbers_of(tap_weights), before.data_ptr()},
                             convolved.data_ptr(),
                             numbers_of(gate)});
  expect_near(convolved, expected, "convolved");
  expect_near(gate, expected_gate, "gate");
  if (taps > 1) expect_near(before, expected_before, "before");
}

template <class C, unsigned kGiven, int kTiles, int kColumns, bool kOwnProduct>
void expect_decode_cell(const CellDefinition& cell, int64_t batch, int64_t width, int64_t heads) {
  SCOPED_TRACE(testing::Message() << cell.name << ", " << batch << " rows of " << width);
  const int64_t channels = width / heads, inputs = cell.inputs - int64_t(cell.side_inputs.size());
  const Tensor x = halves({batch, width}),
               weight = halves({heads, inputs * channels, channels}) / 8;
  const Tensor bias = torch::randn({heads, inputs * channels});
  const Tensor recurrent = torch::randn({C::kParams, width}), norm = torch::randn({width});
  const Tensor gate = torch::randn({batch, width});
  const Tensor state = 0.1 + torch::rand({batch, C::kState, width});
  const Tensor expected_state = state.clone();
  const DecodeInput expected =
      decode_cell(x, weight, bias, recurrent, expected_state, cell, norm, kEpsilon, gate);
  const Tensor next = unwritten_like(expected.x);
  const DecodeOnFibers<kTiles, kColumns, kOwnProduct> kernel({x}, weight, inputs, heads);
  kernel.run(&decode_cell<C, kGiven, kTiles, kColumns, kOwnProduct>,
             DecodeCell{numbers_of(bias), numbers_of(recurrent), numbers_of(state),
                        numbers_of(norm), numbers_of(gate), next.data_ptr(), kernel.squares_to()});
  expect_near(state, expected_state, "state");
  expect_near(next, expected.x, "next");
  expect_near(kernel.squares.sum(1), expected.squares.sum(1), "squares");
}

template <int kTiles, int kColumns, bool kOwnProduct>
void expect_decode_residual(int64_t batch, int64_t width, int64_t depth, bool normed) {
  SCOPED_TRACE(testing::Message() << batch << " rows of " << width << " by " << depth);
  DecodeInput input = input_of(batch, depth);
  if (!normed) input = {input.x};
  const Tensor weight = halves({width, depth}) / 8, scale = torch::randn({width}),
               norm = torch::randn({width});
  const Tensor stream = torch::randn({batch, width}), expected_stream = stream.clone();
  const DecodeInput expected =
      decode_residual(input, weight, scale, expected_stream, norm, kEpsilon);
  const Tensor next = unwritten_like(expected.x);
  const DecodeOnFibers<kTiles, kColumns, kOwnProduct> kernel(input, weight, 1);
  kernel.run(&decode_residual<kTiles, kColumns, kOwnProduct>,
             DecodeResidual{numbers_of(scale), numbers_of(stream), numbers_of(norm),
                            next.data_ptr(), kernel.squares_to()});
  expect_near(stream, expected_stream, "stream");
  expect_near(next, expected.x, "next");
  expect_near(kernel.squares.sum(1), expected.squares.sum(1), "squares");
}

long long* positions_of(const Tensor& t) {
  return reinterpret_cast<long long*>(t.data_ptr<int64_t>());
}

/// A cache of rows that began and read to different indices, with NaN where nothing was read.
DecodeCache random_cache(int64_t batch, int64_t capacity, int64_t query_heads, int64_t key_heads,
                         int64_t channels) {
  DecodeCache cache;
  cache.keys = unwritten_like(halves({batch, capacity, key_heads, channels}));
  cache.values = cache.keys.clone();
  cache.read = torch::randint(capacity, {batch}, torch::kLong);
  cache.begin = (torch::rand({batch}) * (cache.read + 1)).to(torch::kLong);
  for (int64_t row = 0; row < batch; ++row) {
    const auto seen = [&](const Tensor& t) {
      return t[row].slice(0, cache.begin[row].item<int64_t>(), cache.read[row].item<int64_t>());
    };
    for (const Tensor& t : {cache.keys, cache.values}) seen(t).normal_();
  }
  cache.make_counters(query_heads);
  return cache;
}
DecodeCache copy_of(const DecodeCache& cache) {
  return {cache.keys.clone(), cache.values.clone(), cache.begin, cache.read.clone(),
          cache.arrived.clone()};
}
/// With what is NaN in both set to 0.
void expect_near_where_written(const Tensor& got, const Tensor& expected, const char* what) {
  EXPECT_TRUE(torch::equal(got.isnan(), expected.isnan())) << what;
  expect_near(got.nan_to_num(), expected.nan_to_num(), what);
}

template <int kTiles, int kColumns, bool kOwnProduct>
void expect_decode_attention_input(int64_t batch, int64_t width, int64_t query_heads,
                                   int64_t key_heads, int64_t channels) {
  SCOPED_TRACE(testing::Message() << batch << " rows, " << query_heads << " heads of " << channels);
  const DecodeInput input = input_of(batch, width);
  const Tensor weight = halves({(query_heads + 2 * key_heads) * channels, width}) / 8;
  const DecodeCache cache = random_cache(batch, 9, query_heads, key_heads, channels);
  cache.read[batch - 1] = 9;  // full
  const DecodeCache expected_cache = copy_of(cache);
  const Tensor expected = decode_attention_input(input, weight, expected_cache, 100);
  const Tensor queries = unwritten_like(expected);
  DecodeRotation end{int(query_heads),          int(key_heads),           9,
                     positions_of(cache.begin), positions_of(cache.read), numbers_of(queries),
                     cache.keys.data_ptr(),     cache.values.data_ptr(),  {}};
  set_turns(end.turns, int(channels / 2), 100);
  DecodeOnFibers<kTiles, kColumns, kOwnProduct>(input, weight, 2, query_heads + 2 * key_heads)
      .run(&decode_attention_input<kTiles, kColumns, kOwnProduct>, end);
  expect_near(queries, expected, "queries");
  expect_near_where_written(cache.keys, expected_cache.keys, "keys");
  expect_near_where_written(cache.values, expected_cache.values, "values");
}

template <int kQueries, int kLanes>
void expect_decode_attention(int64_t batch, int64_t capacity, int64_t query_heads,
                             int64_t key_heads, int64_t channels, int64_t splits) {
  SCOPED_TRACE(testing::Message() << batch << " rows of " << capacity << ", " << query_heads
                                  << " heads of " << channels << ", splits " << splits);
  const DecodeCache cache = random_cache(batch, capacity, query_heads, key_heads, channels);
  const Tensor queries = 2 * torch::randn({batch, query_heads, channels});
  const auto one = [&](const Tensor& t, int64_t row) {
    return t[row][cache.read[row].item<int64_t>()];
  };
  for (int64_t row = 0; row < batch; ++row) {  // what the token itself has written
    for (const Tensor& t : {cache.keys, cache.values}) one(t, row).normal_();
  }
  if (batch > 2) cache.read[2] = capacity;
  const DecodeCache expected_cache = copy_of(cache);
  const Tensor partial = torch::empty({batch, query_heads, splits, channels}),
               largests = torch::empty({batch, query_heads, splits}),
               sums = torch::empty_like(largests);
  // Two tokens: what counts the blocks is as it was.
  for (int token = 0; token < 2; ++token) {
    const Tensor expected = decode_attention(queries, expected_cache);
    const Tensor next = unwritten_like(expected);
    const DecodeAttention problem{int(query_heads),
                                  int(key_heads),
                                  int(channels),
                                  int(splits),
                                  capacity,
                                  float(1.4426950408889634 / std::sqrt(double(channels))),
                                  numbers_of(queries),
                                  cache.keys.data_ptr(),
                                  cache.values.data_ptr(),
                                  positions_of(cache.begin),
                                  positions_of(cache.read),
                                  next.data_ptr(),
                                  reinterpret_cast<unsigned*>(cache.arrived.data_ptr<int32_t>()),
                                  numbers_of(partial),
                                  numbers_of(largests),
                                  numbers_of(sums)};
    fibers::machine.run({.blocks = int(batch * query_heads / kQueries),
                         .rows_of_blocks = int(splits),
                         .threads = kAttentionThreads},
                        [&] { decode_attention<kQueries, kLanes>(problem); });
    expect_near_where_written(next, expected, "next");
    EXPECT_TRUE(torch::equal(cache.read, expected_cache.read));
    EXPECT_EQ(cache.arrived.abs().sum().item<int64_t>(), 0);
    for (int64_t row = 0; row < batch; ++row) {
      if (cache.read[row].item<int64_t>() >= capacity) continue;
      for (const auto member : {&DecodeCache::keys, &DecodeCache::values}) {
        one(cache.*member, row).normal_();
        one(expected_cache.*member, row).copy_(one(cache.*member, row));
      }
    }
  }
}

template <int kTiles, int kColumns, bool kOwnProduct>
void expect_decode_mamba2_input(int64_t batch, int64_t width, int64_t gates, int64_t convolved,
                                int64_t heads) {
  SCOPED_TRACE(testing::Message() << batch << " rows of " << gates << ", " << convolved);
  const int64_t taps = 3;
  const DecodeInput input = input_of(batch, width);
  const Tensor weight = halves({gates + convolved + heads, width}) / 4;
  const Tensor tap_weights = torch::randn({taps, convolved}), bias = torch::randn({convolved});
  const Tensor step_bias = 20 * torch::randn({heads});
  const Tensor before = halves({batch, taps - 1, convolved}), expected_before = before.clone();
  const Mamba2Inputs expected =
      decode_mamba2_input(input, weight, tap_weights, bias, step_bias, expected_before);
  const Mamba2Inputs got{unwritten_like(expected.gate), unwritten_like(expected.convolved),
                         unwritten_like(expected.steps)};
  DecodeOnFibers<kTiles, kColumns, kOwnProduct>(input, weight, 1)
      .run(
          &decode_mamba2_input<kTiles, kColumns, kOwnProduct>,
          DecodeMamba2Input{{int(taps), int(convolved), numbers_of(tap_weights), before.data_ptr()},
                            numbers_of(bias),
                            numbers_of(step_bias),
                            numbers_of(got.gate),
                            numbers_of(got.convolved),
                            numbers_of(got.steps),
                            int(gates),
                            int(heads)});
  expect_near(got.gate, expected.gate, "gate");
  expect_near(got.convolved, expected.convolved, "convolved");
  expect_near(got.steps, expected.steps, "steps");
  expect_near(before, expected_before, "before");
}

template <int kLanes, int kPacks, int kChannels>
void expect_decode_mamba2_state(int64_t batch, int64_t heads, int64_t channels_of_head,
                                int64_t groups, int64_t components) {
  SCOPED_TRACE(testing::Message() << batch << " rows, " << heads << " heads of " << channels_of_head
                                  << ", " << components);
  const int64_t channels = heads * channels_of_head;
  const Mamba2Inputs inputs{torch::randn({batch, channels}),
                            torch::randn({batch, channels + 2 * groups * components}),
                            torch::rand({batch, heads})};
  const Tensor decay_log = torch::randn({heads}), skip = torch::randn({heads});
  const Tensor norm = torch::randn({channels});
  const Tensor state = torch::randn({batch, heads, channels_of_head, components}),
               expected_state = state.clone();
  const DecodeInput expected =
      decode_mamba2_state(inputs, decay_log, skip, expected_state, norm, kEpsilon);
  const Tensor next = unwritten_like(expected.x);
  constexpr int kOfBlock = kDecodeThreads / kLanes * kChannels;
  const int64_t blocks = (channels + kOfBlock - 1) / kOfBlock;
  const Tensor squares = unwritten_like(torch::empty({batch, blocks}));
  const DecodeMamba2State problem{int(blocks),
                                  int(channels),
                                  int(heads),
                                  int(groups),
                                  int(components),
                                  numbers_of(inputs.gate),
                                  numbers_of(inputs.convolved),
                                  numbers_of(inputs.steps),
                                  numbers_of(decay_log),
                                  numbers_of(skip),
                                  numbers_of(norm),
                                  numbers_of(state),
                                  next.data_ptr(),
                                  {numbers_of(squares), int(blocks)}};
  fibers::machine.run({.blocks = int(batch * blocks), .threads = kDecodeThreads},
                      [&] { decode_mamba2_state<kLanes, kPacks, kChannels>(problem); });
  expect_near(state, expected_state, "state");
  expect_near(next, expected.x, "next");
  expect_near(squares.sum(1), expected.squares.sum(1), "squares");
}

TEST(DecodeOnFibers, Embedding) {
  torch::manual_seed(1);
  const int64_t batch = 3, width = 320;
  const Tensor tokens = torch::tensor({4, 0, 9}, torch::kLong), embedding = halves({10, width});
  const Tensor norm = torch::randn({width}), expected_stream = torch::empty({batch, width});
  const DecodeInput expected = decode_embedding(tokens, embedding, norm, kEpsilon, expected_stream);
  const Tensor stream = unwritten_like(expected_stream), next = unwritten_like(expected.x),
               squares = unwritten_like(expected.squares);
  fibers::machine.run({.blocks = int(batch), .threads = kDecodeThreads}, [&] {
    decode_embedding({int(width), reinterpret_cast<long long*>(tokens.data_ptr<int64_t>()),
                      embedding.data_ptr(), numbers_of(norm), numbers_of(stream), next.data_ptr(),
                      numbers_of(squares)});
  });
  expect_near(stream, expected_stream, "stream");
  expect_near(next, expected.x, "next");
  expect_near(squares, expected.squares, "squares");
}

// One tile of rows and several; rows beyond those of a block; channels and depths that fill no
// block, and depths of more pieces than warps have at once. With row tiles 0, after a product that
// was made before.
TEST(DecodeOnFibers, Convolution) {
  torch::manual_seed(2);
  expect_decode_convolution<1, 1, true>(1, 32, 4);
  expect_decode_convolution<2, 2, true>(13, 64, 1);
  expect_decode_convolution<1, 1, false>(70, 32, 2);
  expect_decode_convolution<1, 4, false>(19, 96, 4);
}

TEST(DecodeOnFibers, Cell) {
  torch::manual_seed(3);
  expect_decode_cell<Gru, 0, 1, 1, true>(find_cell("gru"), 2, 64, 2);
  expect_decode_cell<Lstm, 0, 1, 4, true>(find_cell("lstm"), 3, 96, 1);
  const CellDefinition& given =
      register_cell(read_cell(PARARNN_SOURCE "/examples/cells/gru_d.hpp"));
  expect_decode_cell<catalogue::GruD, 0b11000, 1, 2, true>(given, 15, 32, 1);
  expect_decode_cell<catalogue::GruD, 0b11000, 1, 4, false>(given, 18, 96, 3);
}

TEST(DecodeOnFibers, Residual) {
  torch::manual_seed(4);
  expect_decode_residual<1, 1, true>(2, 20, 96, true);
  expect_decode_residual<4, 1, true>(1, 40, 1120, false);
  expect_decode_residual<2, 4, true>(16, 72, 64, true);
  expect_decode_residual<1, 4, false>(20, 72, 64, true);
}

TEST(DecodeOnFibers, SwigluAndLogits) {
  torch::manual_seed(5);
  const DecodeInput input = input_of(5, 64);
  const Tensor weight = halves({2 * 20, 64}) / 8, expected = decode_swiglu(input, weight);
  const Tensor hidden = unwritten_like(expected);
  DecodeOnFibers<2, 2, true>(input, weight, 2)
      .run(&decode_swiglu<2, 2, true>, DecodeSwiglu{hidden.data_ptr()});
  expect_near(hidden, expected, "hidden");
  const Tensor of_sums = unwritten_like(expected);
  DecodeOnFibers<1, 4, false>(input, weight, 2)
      .run(&decode_swiglu<1, 4, false>, DecodeSwiglu{of_sums.data_ptr()});
  expect_near(of_sums, expected, "hidden of sums");

  const Tensor right = torch::empty({5, 40});
  decode_logits(input, weight, right);
  const Tensor logits = unwritten_like(right);
  DecodeOnFibers<4, 4, true>(input, weight, 1)
      .run(&decode_logits<4, 4, true>, DecodeLogits{numbers_of(logits)});
  expect_near(logits, right, "logits");
}

// Heads of pairs that fill no tile and several; caches that are full.
TEST(DecodeOnFibers, AttentionInput) {
  torch::manual_seed(6);
  expect_decode_attention_input<1, 1, true>(1, 64, 2, 1, 16);
  expect_decode_attention_input<2, 1, true>(9, 32, 3, 3, 40);
  expect_decode_attention_input<2, 2, true>(16, 64, 4, 2, 24);
  expect_decode_attention_input<1, 4, false>(19, 32, 3, 1, 72);
}

// Heads that share, teams of idle threads, tokens that fill no round and no split, splits without
// tokens, more splits than threads of a warp.
TEST(DecodeOnFibers, Attention) {
  torch::manual_seed(7);
  expect_decode_attention<1, 1>(4, 37, 2, 2, 8, 1);
  expect_decode_attention<1, 8>(9, 301, 2, 2, 64, 3);
  expect_decode_attention<1, 16>(2, 150, 3, 3, 96, 1);
  expect_decode_attention<3, 8>(3, 90, 12, 2, 48, 2);
  expect_decode_attention<8, 4>(1, 700, 8, 1, 32, 40);
  expect_decode_attention<2, 32>(3, 33, 4, 2, 256, 5);
}

// Parts of the product that begin within a tile.
TEST(DecodeOnFibers, Mamba2Input) {
  torch::manual_seed(8);
  expect_decode_mamba2_input<1, 1, true>(1, 32, 20, 36, 3);
  expect_decode_mamba2_input<2, 2, true>(15, 64, 64, 90, 5);
  expect_decode_mamba2_input<1, 4, false>(19, 64, 64, 90, 5);
}

// Channels are multiples of 4. Groups of heads, components that fill no team, channels that fill no
// block, several packs.
TEST(DecodeOnFibers, Mamba2State) {
  torch::manual_seed(9);
  expect_decode_mamba2_state<32, 1, 1>(2, 2, 8, 1, 128);
  expect_decode_mamba2_state<16, 1, 4>(9, 6, 10, 3, 52);
  expect_decode_mamba2_state<4, 1, 2>(3, 5, 40, 1, 16);
  expect_decode_mamba2_state<32, 2, 2>(1, 4, 7, 2, 200);
}

}  // namespace
}  // namespace pararnn::ops
