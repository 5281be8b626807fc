// What `pararnn bench --part generate` reports of a model.
#include <gtest/gtest.h>

#include "bench/generation.hpp"

namespace pararnn::bench {
namespace {

nn::ModelConfig small_model(const std::string& mixer, bool tied) {
  nn::ModelConfig config{
      .vocabulary = 50, .width = 32, .layers = 2, .mixer = mixer, .tie_embedding = tied};
  config.attention.heads = 4;
  config.attention.key_value_heads = 2;
  return config;
}

TEST(BenchGeneration, CountsTokensAndBytes) {
  for (const std::string mixer : {"rnn", "attention", "mamba2", "rnn,attention"}) {
    for (const bool tied : {false, true}) {
      SCOPED_TRACE(mixer);
      nn::LanguageModel model(small_model(mixer, tied));
      double numbers = 0;
      for (const auto& weight : model->parameters()) numbers += double(weight.numel());
      if (!tied) numbers -= 50 * 32;  // a row of the embedding a token is nothing
      EXPECT_EQ(bytes_of_step(model, 3, 7).weights, 4 * numbers);

      nlohmann::json m = measure_generation(model, 3, 5, 30, 10);
      EXPECT_EQ(m.at("tokens"), 3 * 30);
      EXPECT_EQ(m.at("context"), 5);
      const double step = m.at("step_ms").get<double>() / 1e3;
      EXPECT_GT(step, 0);
      EXPECT_NEAR(m.at("tokens_per_second").get<double>(), 3 / step, 1e-6 / step);
      const double bytes = m.at("weight_bytes").get<double>() + m.at("state_bytes").get<double>() +
                           m.at("cache_bytes").get<double>();
      EXPECT_NEAR(m.at("share").get<double>(), bytes / step / 10e9, 1e-9 / step);
      EXPECT_FALSE(measure_generation(model, 1, 5, 5, 0).contains("share"));
      m["model"] = "small";
      const std::string label = mixer == "rnn"             ? "gru"
                                : mixer == "rnn,attention" ? "gru,attention"
                                                           : mixer;
      EXPECT_NE(generation_table_row(m).find("| small | " + label + " | Float | 3 | 5 |"),
                std::string::npos)
          << generation_table_row(m);
    }
  }
}

/// Of the tensors that reading some tokens leaves.
TEST(BenchGeneration, BytesOfStatesAreThoseOfTheirTensors) {
  torch::NoGradGuard no_grad;
  for (const std::string mixer : {"rnn", "attention", "mamba2", "rnn,attention"}) {
    SCOPED_TRACE(mixer);
    nn::LanguageModel model(small_model(mixer, true));
    const torch::Tensor tokens = torch::randint(50, {3, 7}, torch::kLong);
    double bytes = 0;
    for (const auto& layer : model->forward(tokens, nn::LanguageModelState{}).second.layers) {
      for (const torch::Tensor& t : layer) {
        if (t.is_floating_point()) bytes += double(t.nbytes());
      }
    }
    const StepBytes found = bytes_of_step(model, 3, 7);
    EXPECT_EQ(found.states / 2 + found.cache, bytes);
    EXPECT_EQ(found.states > 0, mixer != "attention");
    EXPECT_EQ(found.cache > 0, mixer.find("attention") != mixer.npos);
  }
}

TEST(BenchGeneration, WhatDoesNotFitIsSaid) {
  nn::LanguageModel model(small_model("attention", true));
  nlohmann::json m = measure_generation(model, 64, int64_t{1} << 36, 20, 0);
  // Two layers of two heads of eight channels, keys and values.
  EXPECT_NEAR(m.at("needed_gigabytes").get<double>(), 64 * 0x1p36 * 2 * 2 * 16 * 4 / 1e9, 1);
  m["model"] = "small";
  EXPECT_NE(generation_table_row(m).find("does not fit: 1125900"), std::string::npos)
      << generation_table_row(m);
}

}  // namespace
}  // namespace pararnn::bench
