// Generation on a GPU: from CUDA graphs what plain steps give, in every precision and batch.
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "base/error.hpp"
#include "nn/decoder.hpp"
#include "nn/generate.hpp"
#include "ops/cuda_graph.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

/// Graphs are captured on another stream than the default one.
c10::Stream new_stream() {
  const c10::Device gpu(torch::kCUDA, 0);
  return c10::impl::VirtualGuardImpl(gpu.type()).getStreamFromGlobalPool(gpu);
}

class DecoderOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    torch::manual_seed(1);
  }
};

LanguageModel model_on_gpu(torch::ScalarType precision, const char* cell = "gru",
                           const char* mixer = "rnn") {
  ModelConfig config{.vocabulary = 501,
                     .width = 256,
                     .layers = 3,
                     .mixer = mixer,
                     .tie_embedding = false,
                     .rnn = {.cell = cell, .heads = 2}};
  config.attention.key_value_heads = 2;
  LanguageModel model(config);
  model->to(torch::kCUDA);
  model->to_precision(precision);
  return model;
}

TEST_F(DecoderOnGpu, AGraphReplaysPlainSteps) {
  torch::NoGradGuard no_grad;
  const c10::StreamGuard stream(new_stream());
  for (const auto precision : {torch::kBFloat16, torch::kFloat}) {
    for (const auto& [cell, mixer] :
         std::vector<std::pair<const char*, const char*>>{{"gru", "rnn"},
                                                          {"lstm_cifg", "rnn"},
                                                          {"gru", "attention"},
                                                          {"gru", "mamba2"},
                                                          {"gru", "rnn,attention,mamba2"}}) {
      for (const int64_t batch : {1, 5, 64}) {
        SCOPED_TRACE(testing::Message() << precision << " " << cell << " " << mixer << batch);
        LanguageModel model = model_on_gpu(precision, cell, mixer);
        const Tensor tokens =
            torch::randint(501, {batch, 30}, torch::dtype(torch::kLong).device(torch::kCUDA));
        const auto [logits, state] = model->forward(tokens.narrow(1, 0, 20), {});
        // A cache with room is the decoder's.
        const auto plain = make_decoder(model, model->reserve(state, 10), logits.select(1, -1));
        const auto replayed = make_decoder(model, model->reserve(state, 10), logits.select(1, -1));
        const Tensor at = tokens.select(1, 20).clone();
        plain->read(at);
        replayed->read(at);
        const auto replay = ops::capture_graph([&] { replayed->read(at); });
        for (int64_t t = 21; t < 30; ++t) {
          Tensor(at).copy_(tokens.select(1, t));
          plain->read(at);
          replay();
          EXPECT_TRUE(torch::equal(replayed->logits(), plain->logits()));
        }
        // And what the model gives that reads all at once.
        const Tensor expected = model->forward(tokens).select(1, -1).to(torch::kFloat);
        const double error = (plain->logits() - expected).abs().max().item<double>();
        EXPECT_LT(error, precision == torch::kFloat ? 1e-3 : 0.1);
      }
    }
  }
}

TEST_F(DecoderOnGpu, ARowOfABatchIsWhatItWouldBeAlone) {
  LanguageModel model = model_on_gpu(torch::kBFloat16);
  const std::vector<std::vector<int32_t>> prompts{{1, 2, 3}, {4}, {4}, {5, 6, 7, 8, 9}};
  const SamplingOptions options{.temperature = 0.9, .top_p = 0.95, .seed = 3};
  std::vector<std::vector<int32_t>> rows(prompts.size());
  const GenerationTimes times =
      generate(model, prompts, 100, options, [&](int64_t row, int32_t token) {
        rows[size_t(row)].push_back(token);
        return token >= 5;  // some rows end before others
      });
  EXPECT_GT(times.prompt_seconds, 0);
  for (size_t row = 0; row < prompts.size(); ++row) {
    std::vector<int32_t> alone;
    SamplingOptions own = options;
    own.seed += row;
    generate(model, prompts[row], 100, own,
             [&](int32_t token) { return alone.push_back(token), token >= 5; });
    EXPECT_EQ(rows[row], alone) << row;  // sums are added up in one order, whatever the batch
  }
  EXPECT_NE(rows[1], rows[2]);
}

TEST_F(DecoderOnGpu, LogitsThatAreNoNumbersAreSaid) {
  torch::NoGradGuard no_grad;
  LanguageModel model = model_on_gpu(torch::kBFloat16);
  model->named_parameters()["norm.weight"].fill_(std::nan(""));
  const std::vector<int32_t> prompt{1};
  EXPECT_THROW(generate(model, prompt, 50, {}, [](int32_t) { return true; }), Error);
}

}  // namespace
}  // namespace pararnn::nn
