// What `pararnn bench --part generate` reports of a model.
#include <gtest/gtest.h>

#include "bench/generation.hpp"

namespace pararnn::bench {
namespace {

TEST(BenchGeneration, CountsTokensAndWeights) {
  for (const bool tied : {false, true}) {
    nn::LanguageModel model(
        nn::ModelConfig{.vocabulary = 50, .width = 32, .layers = 2, .tie_embedding = tied});
    double numbers = 0;
    for (const auto& weight : model->parameters()) numbers += double(weight.numel());
    if (!tied) numbers -= 50 * 32;  // a row of the embedding a token is nothing
    EXPECT_EQ(weights_of_step(model, torch::kBFloat16), 2 * numbers);

    nlohmann::json m = measure_generation(model, 3, 30, 10);
    EXPECT_EQ(m.at("tokens"), 3 * 28);  // from the third step on
    const double step = m.at("step_ms").get<double>() / 1e3;
    EXPECT_GT(step, 0);
    EXPECT_NEAR(m.at("tokens_per_second").get<double>(), 3 / step, 1e-6 / step);
    EXPECT_NEAR(m.at("share").get<double>(), 4 * numbers / step / 10e9, 1e-9 / step);
    m["model"] = "small";
    EXPECT_NE(generation_table_row(m).find("| small | gru | Float | 3 |"), std::string::npos);
    EXPECT_FALSE(measure_generation(model, 1, 5, 0).contains("share"));
  }
}

}  // namespace
}  // namespace pararnn::bench
