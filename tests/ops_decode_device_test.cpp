// Decoding on a GPU: each kernel equals its definition on the CPU, for the sizes of models and any
// batch; tokens are those that the definition draws; what cannot be captured is said.
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "ops/cuda_graph.hpp"
#include "ops/decode/decode.hpp"
#include "ops/decode/decode_attention.hpp"
#include "ops/decode/decode_mamba2.hpp"
#include "ops/sample/sample.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// Graphs are captured on another stream than the default one.
c10::Stream new_stream() {
  const c10::Device gpu(torch::kCUDA, 0);
  return c10::impl::VirtualGuardImpl(gpu.type()).getStreamFromGlobalPool(gpu);
}

class DecodeOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    torch::manual_seed(1);
  }
};

Tensor there(const Tensor& t) { return t.to(torch::kCUDA); }
DecodeInput there(const DecodeInput& input) {
  return {there(input.x), input.squares.defined() ? there(input.squares) : Tensor(), input.epsilon};
}
Tensor random_halves(torch::IntArrayRef shape) { return torch::randn(shape).to(torch::kBFloat16); }

constexpr double kNormEpsilon = 1e-5;

void expect_same(const Tensor& got, const Tensor& expected, const char* what) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const double tolerance = expected.scalar_type() == torch::kBFloat16 ? 1e-2 : 1e-4;
  const Tensor a = got.cpu().to(torch::kDouble), b = expected.to(torch::kDouble);
  EXPECT_LE((a - b).abs().max().item<double>(), tolerance * (1 + b.abs().max().item<double>()))
      << what;
}
void expect_same(const DecodeInput& got, const DecodeInput& expected) {
  expect_same(got.x, expected.x, "x");
  expect_same(got.squares.sum(1), expected.squares.sum(1), "squares");
}

TEST_F(DecodeOnGpu, EveryPartIsItsDefinition) {
  for (const auto& [width, hidden] : {std::array<int64_t, 2>{768, 2048}, {2048, 5632}, {96, 160}}) {
    for (const int64_t batch : {1, 7, 17, 33, 64, 130}) {
      SCOPED_TRACE(testing::Message() << batch << " rows of " << width);
      const int64_t heads = width % 128 == 0 ? 4 : 1, vocabulary = 1001;
      const Tensor tokens = torch::randint(vocabulary, {batch}, torch::kLong);
      const Tensor embedding = random_halves({vocabulary, width}), norm = torch::randn({width});
      const Tensor stream = torch::empty({batch, width}), stream_there = there(stream);
      const DecodeInput x = decode_embedding(tokens, embedding, norm, kNormEpsilon, stream);
      expect_same(decode_embedding(there(tokens), there(embedding), there(norm), kNormEpsilon,
                                   stream_there),
                  x);
      expect_same(stream_there, stream, "embedded");

      const Tensor weight = random_halves({2 * width, width}) / 16, taps = torch::randn({4, width});
      const Tensor before = random_halves({batch, 3, width}), before_there = there(before);
      const auto [convolved, gate] = decode_convolution(x, weight, taps, before);
      const auto [convolved_there, gate_there] =
          decode_convolution(there(x), there(weight), there(taps), before_there);
      expect_same(convolved_there, convolved, "convolved");
      expect_same(gate_there, gate, "gate");
      expect_same(before_there, before, "before");

      for (const char* name : {"gru", "lstm"}) {
        const CellDefinition& cell = find_cell(name);
        const int64_t channels = width / heads, rows = cell.inputs * channels;
        const Tensor projection = random_halves({heads, rows, channels}) / 16;
        const Tensor bias = torch::randn({heads, rows}),
                     recurrent = torch::rand({cell.params, width});
        const Tensor state = torch::rand({batch, cell.state, width}), state_there = there(state);
        const DecodeInput y = decode_cell(convolved, projection, bias, recurrent, state, cell, norm,
                                          kNormEpsilon, gate);
        expect_same(decode_cell(there(convolved), there(projection), there(bias), there(recurrent),
                                state_there, cell, there(norm), kNormEpsilon, there(gate)),
                    y);
        expect_same(state_there, state, "state");
      }

      const Tensor output = random_halves({width, width}) / 16, scale = torch::randn({width});
      const DecodeInput next = decode_residual(x, output, scale, stream, norm, kNormEpsilon);
      expect_same(decode_residual(there(x), there(output), there(scale), stream_there, there(norm),
                                  kNormEpsilon),
                  next);
      expect_same(stream_there, stream, "stream");

      const Tensor inner = random_halves({2 * hidden, width}) / 16;
      expect_same(decode_swiglu(there(x), there(inner)), decode_swiglu(x, inner), "hidden");

      const Tensor logits = torch::empty({batch, vocabulary}), logits_there = there(logits);
      decode_logits(x, embedding, logits);
      decode_logits(there(x), there(embedding), logits_there);
      expect_same(logits_there, logits, "logits");
    }
  }
}

TEST_F(DecodeOnGpu, AttentionIsItsDefinition) {
  struct Sizes {
    int64_t width, heads, key_heads, channels, batch, capacity;
  };
  // Many splits and one, as many queries as share and more, capacities that are multiples of
  // nothing.
  for (const Sizes& s : std::vector<Sizes>{{768, 12, 12, 64, 1, 5003},
                                           {768, 12, 3, 64, 7, 301},
                                           {2048, 16, 16, 128, 2, 1031},
                                           {96, 24, 2, 40, 9, 77},
                                           {64, 2, 1, 256, 33, 65},
                                           {64, 4, 4, 16, 130, 50}}) {
    SCOPED_TRACE(testing::Message() << s.heads << " heads of " << s.channels << ", " << s.batch
                                    << " rows of " << s.capacity);
    const Tensor weight = random_halves({(s.heads + 2 * s.key_heads) * s.channels, s.width}) / 16;
    DecodeCache here{.keys = random_halves({s.batch, s.capacity, s.key_heads, s.channels}),
                     .values = random_halves({s.batch, s.capacity, s.key_heads, s.channels}),
                     .begin = {},
                     .read = torch::randint(s.capacity - 4, {s.batch}, torch::kLong),
                     .arrived = {}};
    here.read[0] = s.capacity - 4;  // the last token finds the cache full
    here.begin = (torch::rand({s.batch}) * (here.read + 1)).to(torch::kLong);
    DecodeCache on_gpu{
        there(here.keys), there(here.values), there(here.begin), there(here.read), {}};
    for (DecodeCache* cache : {&here, &on_gpu}) cache->make_counters(s.heads);
    for (int token = 0; token < 5; ++token) {
      const DecodeInput x{random_halves({s.batch, s.width}),
                          torch::rand({s.batch, 3}) * double(s.width), kNormEpsilon};
      const Tensor queries = decode_attention_input(x, weight, here, 10000);
      expect_same(decode_attention_input(there(x), there(weight), on_gpu, 10000), queries,
                  "queries");
      expect_same(on_gpu.keys, here.keys, "keys");
      expect_same(on_gpu.values, here.values, "values");
      const Tensor expected = decode_attention(queries, here);
      const Tensor got = decode_attention(there(queries), on_gpu).cpu();
      EXPECT_TRUE(torch::equal(got.isnan(), expected.isnan()));
      EXPECT_EQ(expected.isnan().any().item<bool>(), token == 4);
      expect_same(got.nan_to_num(), expected.nan_to_num(), "attention");
      EXPECT_TRUE(torch::equal(on_gpu.read.cpu(), here.read));
    }
  }
}

TEST_F(DecodeOnGpu, Mamba2IsItsDefinition) {
  struct Sizes {
    int64_t width, heads, channels, groups, components, batch;
  };
  for (const Sizes& s : std::vector<Sizes>{{768, 24, 64, 1, 128, 1},
                                           {768, 24, 64, 1, 128, 64},
                                           {96, 6, 32, 3, 20, 9},
                                           {64, 2, 64, 2, 300, 130}}) {
    SCOPED_TRACE(testing::Message() << s.batch << " rows of " << s.width);
    const int64_t inner = s.heads * s.channels, convolved = inner + 2 * s.groups * s.components;
    const Tensor weight = random_halves({inner + convolved + s.heads, s.width}) / 16;
    const Tensor taps = torch::randn({4, convolved}), bias = torch::randn({convolved});
    const Tensor step_bias = torch::randn({s.heads}) - 3, decay_log = torch::randn({s.heads});
    const Tensor skip = torch::randn({s.heads}), norm = torch::randn({inner});
    const Tensor before = random_halves({s.batch, 3, convolved}), before_there = there(before);
    const Tensor state = torch::randn({s.batch, s.heads, s.channels, s.components});
    const Tensor state_there = there(state);
    for (int token = 0; token < 2; ++token) {
      const DecodeInput x{random_halves({s.batch, s.width}),
                          torch::rand({s.batch, 3}) * double(s.width), kNormEpsilon};
      const Mamba2Inputs here = decode_mamba2_input(x, weight, taps, bias, step_bias, before);
      const Mamba2Inputs on_gpu = decode_mamba2_input(there(x), there(weight), there(taps),
                                                      there(bias), there(step_bias), before_there);
      expect_same(on_gpu.gate, here.gate, "gate");
      // Its inputs are rounded to bfloat16, at times to the other side.
      expect_same(on_gpu.convolved, here.convolved.to(torch::kBFloat16), "convolved");
      expect_same(on_gpu.steps, here.steps, "steps");
      expect_same(before_there, before, "before");
      const DecodeInput next =
          decode_mamba2_state(here, decay_log, skip, state, norm, kNormEpsilon);
      const Mamba2Inputs same{there(here.gate), there(here.convolved), there(here.steps)};
      expect_same(decode_mamba2_state(same, there(decay_log), there(skip), state_there, there(norm),
                                      kNormEpsilon),
                  next);
      expect_same(state_there, state, "state");
    }
  }
}

TEST_F(DecodeOnGpu, DrawsWhatTheDefinitionDraws) {
  for (const int64_t vocabulary : {257, 32000, 50432, 200000}) {
    const int64_t batch = 64, draws = vocabulary > 60000 ? 1 : 4;
    for (const auto& [temperature, top_p] :
         {std::pair<double, double>{0, 1}, {1, 1}, {0.8, 0.95}, {1.5, 0.3}}) {
      SCOPED_TRACE(testing::Message()
                   << vocabulary << " tokens, temperature " << temperature << ", top-p " << top_p);
      const auto rows = [&](const torch::Device& device) {
        return SampleState{
            .seeds = torch::arange(batch).to(device),
            .positions = torch::zeros({batch}, torch::kLong).to(device),
            .tokens = torch::zeros({batch}, torch::kLong).to(device),
            .drawn = torch::zeros({3, batch},
                                  torch::dtype(torch::kInt).pinned_memory(device.is_cuda()))};
      };
      SampleState here = rows(torch::kCPU), on_gpu = rows(torch::kCUDA);
      int64_t other = 0;
      for (int64_t draw = 0; draw < draws; ++draw) {
        const Tensor logits = 4 * torch::randn({batch, vocabulary});
        sample(logits, temperature, top_p, here);
        sample(there(logits), temperature, top_p, on_gpu);
        torch::cuda::synchronize();
        other += (on_gpu.tokens.cpu() != here.tokens).sum().item<int64_t>();
        EXPECT_TRUE(torch::equal(on_gpu.drawn[draw % 3], on_gpu.tokens.cpu().to(torch::kInt)));
      }
      // Float and double may differ where two tokens come within a rounding of each other.
      EXPECT_LE(other, 1);
    }
  }
}

TEST_F(DecodeOnGpu, WhatCannotBeCapturedIsSaid) {
  const c10::StreamGuard stream(new_stream());
  const Tensor one = torch::ones({1}, torch::device(torch::kCUDA));
  const Tensor sum = torch::zeros_like(one);
  const auto works = [&] { Tensor(sum).add_(one); };
  const auto waits = [&] { one.item<float>(); };
  works();
  try {
    capture_graph(waits);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    const std::string sentence = error.what();
    EXPECT_EQ(sentence.rfind("cannot make a CUDA graph: ", 0), 0u) << sentence;
    EXPECT_EQ(sentence.find('\n'), sentence.npos) << sentence;
  }
  const auto replay = capture_graph(works);
  EXPECT_EQ(sum.item<float>(), 1);
  replay();
  replay();
  EXPECT_EQ(sum.item<float>(), 3);
}

}  // namespace
}  // namespace pararnn::ops
