// Decoding on a GPU: steps are the definition's on the CPU, for the sizes of models and any batch;
// tokens are those that the definition draws; what cannot be captured is said.
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "decode_test_support.hpp"
#include "ops/cuda_graph.hpp"
#include "ops/decode/decode.hpp"
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

/// Relative to the largest number; what is rounded to bfloat16 on the way may be rounded another
/// way.
void expect_same(const Tensor& got, const Tensor& expected, const char* what) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const Tensor a = got.cpu().to(torch::kDouble), b = expected.to(torch::kDouble);
  EXPECT_LE((a - b).abs().max().item<double>(), 2e-2 * (1 + b.abs().max().item<double>())) << what;
  EXPECT_LE((a - b).abs().median().item<double>(), 2e-3) << what;
}

TEST_F(DecodeOnGpu, StepsAreTheDefinitions) {
  const test::DecodedSizes sizes[] = {
      {.width = 768, .heads = 4, .hidden = 2048, .vocabulary = 1001, .layers = 2},
      {.width = 2048, .heads = 4, .hidden = 5632, .vocabulary = 3000, .layers = 1},
      {.width = 96, .heads = 1, .hidden = 160, .vocabulary = 77, .layers = 3, .taps = 2}};
  for (const test::DecodedSizes& size : sizes) {
    for (const int64_t batch : {1, 3, 16, 17, 33, 64, 100}) {
      for (const char* name : {"gru", "lstm"}) {
        SCOPED_TRACE(testing::Message() << name << ", " << batch << " rows of " << size.width);
        const DecodedModel model = test::random_decoded_model(find_cell(name), size, batch);
        const DecodedModel model_there = test::map_tensors(model, there);
        const DecodeStep step = make_decode_step(model_there, batch);
        for (int number = 0; number < 3; ++number) {
          const Tensor tokens = torch::randint(size.vocabulary, {batch}, torch::kLong);
          const Tensor logits = torch::empty({batch, size.vocabulary});
          const Tensor logits_there = torch::full_like(logits, std::nan(""), torch::kCUDA);
          decode_step_definition(model, tokens, logits);
          step(there(tokens), logits_there);
          expect_same(logits_there, logits, "logits");
        }
        for (size_t i = 0; i < model.layers.size(); ++i) {
          expect_same(model_there.layers[i].state, model.layers[i].state, "state");
          expect_same(model_there.layers[i].before, model.layers[i].before, "before");
        }
      }
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
