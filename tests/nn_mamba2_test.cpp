// The mixer of Mamba2: it is what the paper writes, step by step; its pieces are the whole.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <vector>

#include "base/error.hpp"
#include "error_test_support.hpp"
#include "gradient_test_support.hpp"
#include "nn/block.hpp"
#include "nn/language_model.hpp"
#include "nn/mixers/mamba2_mixer.hpp"

using namespace pararnn;
using namespace pararnn::nn;
using torch::Tensor;

namespace {

/// Two heads of 8 channels for each of two groups.
ModelConfig mamba2_config(const std::string& pattern = "mamba2") {
  return {.vocabulary = 11,
          .width = 16,
          .layers = 2,
          .mixer = pattern,
          .mamba2 = {.head_channels = 8, .state = 5, .groups = 2}};
}

LanguageModel exact_mamba2(const ModelConfig& config) {
  LanguageModel model(config);
  model->to(torch::kDouble);
  return model;
}

/// What the paper writes, of the mixer's parameters.
Tensor published(const torch::OrderedDict<std::string, Tensor>& w, const Mamba2Options& options,
                 const Tensor& u, double epsilon) {
  const int64_t e = w["norm.weight"].size(0), heads = w["skip"].size(0), p = e / heads;
  const int64_t groups = options.groups, n = options.state, shared = groups * n;
  const Tensor all = torch::linear(u, w["input.weight"]);
  const auto parts = all.split_with_sizes({e, e + 2 * shared, heads}, -1);
  const Tensor dt = torch::softplus(parts[2] + w["step_bias"]), a = -w["decay_log"].exp();
  const Tensor taps = w["convolution.weight"];
  Tensor h = torch::zeros({u.size(0), heads, p, n}, u.options());
  std::vector<Tensor> y;
  for (int64_t t = 0; t < u.size(1); ++t) {
    Tensor seen = w["convolution.bias"].expand({u.size(0), -1});
    for (int64_t k = 0; k < taps.size(0); ++k) {
      const int64_t at = t - taps.size(0) + 1 + k;
      if (at >= 0) seen = seen + taps[k] * parts[1].select(1, at);
    }
    const auto xbc = torch::silu(seen).split_with_sizes({e, shared, shared}, -1);
    const Tensor x = xbc[0].view({-1, heads, p});
    const auto of_heads = [&](const Tensor& s) {
      return s.view({-1, groups, n}).repeat_interleave(heads / groups, 1);
    };
    const Tensor step = dt.select(1, t);
    h = torch::exp(a * step).view({-1, heads, 1, 1}) * h +
        torch::einsum("bh,bhp,bhn->bhpn", {step, x, of_heads(xbc[1])});
    const Tensor out =
        torch::einsum("bhpn,bhn->bhp", {h, of_heads(xbc[2])}) + w["skip"].unsqueeze(-1) * x;
    const Tensor gated = out.flatten(1) * torch::silu(parts[0].select(1, t));
    const Tensor scale = (gated.square().mean(-1, true) + epsilon).rsqrt();
    y.push_back(gated * scale * w["norm.weight"]);
  }
  return torch::linear(torch::stack(y, 1), w["output.weight"]);
}

TEST(Mamba2, IsWhatThePaperWrites) {
  torch::manual_seed(1);
  const torch::NoGradGuard no_grad;
  const ModelConfig config = mamba2_config();
  const auto mixer = make_mixer(config, 0);
  mixer->to(torch::kDouble);
  for (const Tensor& parameter : mixer->parameters()) {
    parameter.add_(0.3 * torch::randn_like(parameter));
  }
  const Tensor x = torch::randn({2, 150, 16}, torch::kDouble);
  const auto [y, state] = mixer->forward(x, {}, {});
  const Tensor expected =
      published(mixer->named_parameters(), config.mamba2, x, config.norm_epsilon);
  EXPECT_TRUE(torch::allclose(y, expected, 1e-10, 1e-10));
  EXPECT_EQ(state[0].sizes(), torch::IntArrayRef({2, 3, 32 + 20}));
  EXPECT_EQ(state[1].sizes(), torch::IntArrayRef({2, 4, 8, 5}));
}

TEST(Mamba2, GradientsAreFiniteDifferences) {
  torch::manual_seed(2);
  const ModelConfig config = mamba2_config();
  auto block = std::make_shared<Block>(config);
  block->to(torch::kDouble);
  const Tensor x = test::leaf({2, 9, 16});
  std::vector<Tensor> inputs{x};
  for (const Tensor& parameter : block->parameters()) inputs.push_back(parameter);
  test::expect_gradient([&] { return block->forward({.x = x}, {}, {}).first.sum(); }, inputs);
  const auto mixer = make_mixer(config, 0);
  mixer->to(torch::kDouble);
  test::expect_gradient(
      [&] {
        const auto [y, state] = mixer->forward(x.narrow(1, 0, 4), {}, {});
        return mixer->forward(x.narrow(1, 4, 5), state, {}).first;
      },
      {x});
}

TEST(Mamba2, StepsAndPiecesAreTheWholeText) {
  torch::manual_seed(3);
  const torch::NoGradGuard no_grad;
  for (const char* pattern : {"mamba2", "rnn,mamba2"}) {
    const ModelConfig config = mamba2_config(pattern);
    auto model = exact_mamba2(config);
    const Tensor tokens = torch::randint(config.vocabulary, {2, 140}, torch::kLong);
    const Tensor expected = model->forward(tokens);
    LanguageModelState state;
    for (int64_t t = 0; t < 140; ++t) {
      const Tensor logits = model->step(tokens.select(1, t), state);
      ASSERT_TRUE(torch::allclose(logits, expected.select(1, t), 1e-8, 1e-8)) << "step " << t;
    }
    LanguageModelState of_pieces;
    std::vector<Tensor> pieces;
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{0, 1}, {1, 3}, {3, 133}, {133, 140}}) {
      auto [logits, next] = model->forward(tokens.slice(1, begin, end), of_pieces);
      pieces.push_back(logits);
      of_pieces = next;
    }
    EXPECT_TRUE(torch::allclose(torch::cat(pieces, 1), expected, 1e-8, 1e-8));
    for (size_t layer = 0; layer < state.layers.size(); ++layer) {
      for (size_t i = 0; i < state.layers[layer].size(); ++i) {
        EXPECT_TRUE(
            torch::allclose(of_pieces.layers[layer][i], state.layers[layer][i], 1e-8, 1e-8));
      }
    }
  }
}

TEST(Mamba2, NoTokenSeesALaterOne) {
  torch::manual_seed(4);
  const torch::NoGradGuard no_grad;
  const ModelConfig config = mamba2_config();
  auto model = exact_mamba2(config);
  const Tensor tokens = torch::randint(config.vocabulary, {2, 140}, torch::kLong);
  const Tensor logits = model->forward(tokens);
  for (const int64_t t : {0, 5, 127, 128, 139}) {
    Tensor changed = tokens.clone();
    changed.select(1, t).copy_((changed.select(1, t) + 1) % config.vocabulary);
    const Tensor after = model->forward(changed);
    EXPECT_TRUE(torch::equal(after.narrow(1, 0, t), logits.narrow(1, 0, t)));
    EXPECT_FALSE(torch::allclose(after.select(1, t), logits.select(1, t)));
  }
}

TEST(Mamba2, StartsAsPublished) {
  torch::manual_seed(6);
  const ModelConfig config{
      .width = 512, .layers = 2, .mixer = "mamba2", .mamba2 = {.head_channels = 1}};
  const auto mixer = make_mixer(config, 0);
  const auto w = mixer->named_parameters();
  const Tensor a = w["decay_log"].exp(), dt = torch::softplus(w["step_bias"]).log10();
  const auto expect_uniform = [](const Tensor& t, double least, double most) {
    EXPECT_GE(t.min().item<double>(), least - 1e-4);
    EXPECT_LE(t.max().item<double>(), most + 1e-4);
    const double width = most - least, tolerance = 4 * width / std::sqrt(12.0 * double(t.numel()));
    EXPECT_NEAR(t.mean().item<double>(), (least + most) / 2, tolerance);
    EXPECT_NEAR(t.std().item<double>(), width / std::sqrt(12.0), tolerance);
  };
  expect_uniform(a, 1, 16);
  expect_uniform(dt, -3, -1);
  EXPECT_TRUE(w["skip"].eq(1).all().item<bool>());
  for (const auto& item : w) {
    EXPECT_EQ(mixer->decays(item.key(), item.value()), item.key() == "input.weight" ||
                                                           item.key() == "convolution.weight" ||
                                                           item.key() == "output.weight")
        << item.key();
  }
}

TEST(Mamba2, SizesThatMakeNoHeadsAreRefused) {
  ModelConfig config = mamba2_config();
  config.mamba2.head_channels = 5;
  expect_holds(error_of([&] { validate(config); }),
               "mamba2.head_channels must divide mamba2.expand times width");
  config.mamba2 = {.head_channels = 8, .groups = 3};
  expect_holds(error_of([&] { validate(config); }), "mamba2.groups must divide");
}

}  // namespace
