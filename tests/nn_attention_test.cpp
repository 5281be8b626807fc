// The mixer attention against its definition in loops, read whole, in pieces and step by step;
// alone and beside recurrent layers.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "base/error.hpp"
#include "error_test_support.hpp"
#include "gradient_test_support.hpp"
#include "nn/decoder.hpp"
#include "nn/generate.hpp"
#include "nn/language_model.hpp"

namespace pararnn::nn {
namespace {

using test::kDouble;
using torch::Tensor;

struct AttentionShape {
  int64_t width, heads, key_value_heads;
};
const std::vector<AttentionShape> kAttentionShapes{{8, 1, 1}, {12, 3, 3}, {16, 4, 2}, {24, 4, 1}};

ModelConfig attention_config(const AttentionShape& shape) {
  return {.vocabulary = 11,
          .width = shape.width,
          .layers = 1,
          .mixer = "attention",
          .attention = {
              .heads = shape.heads, .key_value_heads = shape.key_value_heads, .rotary_base = 50}};
}

std::shared_ptr<Mixer> exact_mixer(const AttentionShape& shape) {
  const auto mixer = make_mixer(attention_config(shape), 0);
  mixer->to(torch::kDouble);
  return mixer;
}

/// What the mixer is: for every query a loop over the keys of its document, number by number.
Tensor by_definition(Mixer& mixer, const AttentionShape& shape, const Tensor& x,
                     const Tensor& reset) {
  const int64_t batch = x.size(0), steps = x.size(1), n = shape.width / shape.heads;
  const int64_t group = shape.heads / shape.key_value_heads;
  const auto parameters = mixer.named_parameters();
  const Tensor product = torch::matmul(x, parameters["input.weight"].t());
  const auto p = product.accessor<double, 3>();
  const auto starts = reset.accessor<bool, 2>();
  /// Channel i of a head at a step, turned by a position.
  const auto turned = [&](int64_t b, int64_t t, int64_t head, int64_t i, int64_t position) {
    const int64_t pair = i % (n / 2);
    const double angle = double(position) * std::pow(50.0, -2.0 * double(pair) / double(n));
    const double first = p[b][t][head * n + pair], second = p[b][t][head * n + pair + n / 2];
    return i < n / 2 ? first * std::cos(angle) - second * std::sin(angle)
                     : second * std::cos(angle) + first * std::sin(angle);
  };
  Tensor mixed = torch::zeros({batch, steps, shape.width}, kDouble);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0, begin = 0; t < steps; ++t) {
      if (starts[b][t]) begin = t;
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t key = shape.heads + h / group, value = key + shape.key_value_heads;
        double sum = 0;
        std::vector<double> weighted(size_t(n), 0.0);
        for (int64_t s = begin; s <= t; ++s) {
          double score = 0;
          for (int64_t i = 0; i < n; ++i) {
            score += turned(b, t, h, i, t - begin) * turned(b, s, key, i, s - begin);
          }
          const double weight = std::exp(score / std::sqrt(double(n)));
          sum += weight;
          for (int64_t i = 0; i < n; ++i) weighted[size_t(i)] += weight * p[b][s][value * n + i];
        }
        for (int64_t i = 0; i < n; ++i) mixed[b][t][h * n + i] = weighted[size_t(i)] / sum;
      }
    }
  }
  return torch::matmul(mixed, parameters["output.weight"].t());
}

template <class Action>
void expect_refused(Action&& action, const std::string& words) {
  expect_holds(error_of(action), words);
}

bool near(const Tensor& a, const Tensor& b) { return torch::allclose(a, b, 1e-9, 1e-10); }

TEST(AttentionMixer, IsItsDefinition) {
  torch::manual_seed(1);
  const torch::NoGradGuard no_grad;
  for (const AttentionShape& shape : kAttentionShapes) {
    const auto mixer = exact_mixer(shape);
    const Tensor x = torch::randn({2, 13, shape.width}, kDouble);
    const Tensor none = torch::zeros({2, 13}, torch::kBool);
    EXPECT_TRUE(near(mixer->forward(x, {}, {}).first, by_definition(*mixer, shape, x, none)));
    const Tensor reset = torch::rand({2, 13}) < 0.3;
    EXPECT_TRUE(near(mixer->forward(x, {}, reset).first, by_definition(*mixer, shape, x, reset)));
  }
}

TEST(AttentionMixer, PiecesAndStepsEqualTheWhole) {
  torch::manual_seed(2);
  const torch::NoGradGuard no_grad;
  for (const AttentionShape& shape : kAttentionShapes) {
    const auto mixer = exact_mixer(shape);
    const Tensor x = torch::randn({3, 20, shape.width}, kDouble);
    const Tensor reset = torch::rand({3, 20}) < 0.2;
    reset.narrow(1, 10, 10).fill_(false);
    const auto piece = [&](int64_t begin, int64_t end, const MixerState& state) {
      return mixer->forward(x.slice(1, begin, end), state, reset.slice(1, begin, end));
    };
    const auto [whole, after] = piece(0, 20, {});
    const auto [first, early] = piece(0, 4, {});
    const auto [second, later] = piece(4, 5, early);
    auto [third, state] = piece(5, 12, later);
    std::vector<Tensor> got{first, second, third}, reserved{first, second, third};
    MixerState with_room = mixer->reserve(mixer->reserve(state, 3), 6);
    const Tensor memory = with_room[0];
    for (int64_t t = 12; t < 20; ++t) {
      Tensor y;
      std::tie(y, state) = mixer->forward(x.slice(1, t, t + 1), state, {});
      got.push_back(y);
      std::tie(y, with_room) = mixer->forward(x.slice(1, t, t + 1), with_room, {});
      reserved.push_back(y);
    }
    EXPECT_TRUE(near(torch::cat(got, 1), whole));
    EXPECT_TRUE(near(torch::cat(reserved, 1), whole));
    for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(near(state[i], after[i])) << i;
    EXPECT_TRUE(with_room[0].is_same(memory));
    EXPECT_TRUE(near(with_room[0].narrow(1, 0, 20), after[0]));
    EXPECT_TRUE(torch::equal(with_room[3], torch::full({3}, 20)));
  }
}

TEST(AttentionMixer, AStateWithRoomIsForSteps) {
  const auto mixer = exact_mixer({8, 1, 1});
  const Tensor x = torch::randn({1, 2, 8}, kDouble);
  MixerState state;
  {
    const torch::NoGradGuard no_grad;
    state = mixer->reserve(mixer->forward(x, {}, {}).second, 5);
    expect_refused([&] { mixer->forward(x, state, {}); }, "one step at a time");
  }
  expect_refused([&] { mixer->forward(x.narrow(1, 0, 1), state, {}); }, "without a gradient");
  EXPECT_TRUE(mixer->reserve({}, 5).empty());
}

TEST(AttentionMixer, GradientsEqualFiniteDifferences) {
  torch::manual_seed(3);
  for (const AttentionShape& shape : kAttentionShapes) {
    const auto mixer = exact_mixer(shape);
    const Tensor x = test::leaf({2, 9, shape.width});
    std::vector<Tensor> inputs = mixer->parameters();
    inputs.push_back(x);
    const Tensor reset = torch::rand({2, 9}) < 0.2;
    test::expect_gradient([&] { return mixer->forward(x, {}, {}).first; }, inputs);
    test::expect_gradient([&] { return mixer->forward(x, {}, reset).first; }, inputs);
    // Through the state of a piece before.
    test::expect_gradient(
        [&] {
          const auto [first, state] = mixer->forward(x.narrow(1, 0, 4), {}, {});
          return torch::cat({first, mixer->forward(x.narrow(1, 4, 5), state, {}).first}, 1);
        },
        inputs);
  }
}

/// The parameters lie in memory as the contract of a checkpoint says.
TEST(AttentionMixer, ItsParametersAndTheirGains) {
  torch::manual_seed(4);
  ModelConfig config = attention_config({512, 0, 2});
  config.layers = 8;
  const auto parameters = make_mixer(config, 0)->named_parameters();
  EXPECT_EQ(parameters.size(), 2u);
  EXPECT_EQ(parameters["input.weight"].sizes(), (torch::IntArrayRef{(8 + 2 * 2) * 64, 512}));
  EXPECT_EQ(parameters["output.weight"].sizes(), (torch::IntArrayRef{512, 512}));
  const double unit = std::sqrt(512.0);
  EXPECT_NEAR(parameters["input.weight"].std().item<double>() * unit, 1, 0.02);
  EXPECT_NEAR(parameters["output.weight"].std().item<double>() * unit, 0.25, 0.005);
}

TEST(AttentionMixer, RefusesWhatMakesNoHeads) {
  const auto refused = [](AttentionOptions options, int64_t width, const std::string& words) {
    const ModelConfig config{.width = width, .mixer = "attention", .attention = options};
    expect_refused([&] { validate(config); }, words);
  };
  refused({.heads = 3}, 64, "3 does not divide 64");
  refused({.heads = 4, .key_value_heads = 3}, 64,
          "attention.key_value_heads must divide the heads of attention: 3");
  refused({.heads = 8}, 56, "56 / 8 = 7");
  refused({}, 200, "3 does not divide 200: give other attention.heads");
  refused({.heads = 1}, 1024, "at most 512");
  refused({.rotary_base = 0}, 64, "rotary_base must be a positive number");
  EXPECT_NO_THROW(validate(ModelConfig{.width = 64, .mixer = "attention"}));
  EXPECT_NO_THROW(validate(ModelConfig{.width = 2, .mixer = "attention"}));
}

/// Layers of both kinds.
LanguageModel hybrid_model(int64_t layers = 3) {
  const ModelConfig config{.vocabulary = 11,
                           .width = 16,
                           .layers = layers,
                           .mixer = "rnn*2,attention",
                           .attention = {.heads = 2, .key_value_heads = 1}};
  LanguageModel model(config);
  model->to(torch::kDouble);
  return model;
}

TEST(Hybrid, WhatFollowsFromDocumentsIsWorkedOutOnceForAllLayers) {
  torch::manual_seed(10);
  LanguageModel model = hybrid_model(6);
  const Tensor tokens = torch::randint(11, {2, 20}, torch::kLong);
  const Tensor reset = torch::rand({2, 20}) < 0.2;
  LanguageModelState state = model->forward(tokens, {}, reset).second;
  for (int again = 0; again < 2; ++again) {
    const size_t begin = 2;  // of a state of attention
    EXPECT_TRUE(state.layers[2][begin].is_same(state.layers[5][begin]));
    state = model->forward(tokens, state, reset).second;
  }
  // A layer by itself works it out.
  const auto mixer = exact_mixer({8, 1, 1});
  const Tensor x = torch::randn({2, 20, 8}, kDouble);
  Documents shared(reset);
  mixer->prepare(shared, {}, 2, 20);
  EXPECT_TRUE(
      torch::equal(mixer->forward(x, {}, shared).first, mixer->forward(x, {}, reset).first));
}

TEST(Hybrid, ComputedAgainItIsTheSame) {
  torch::manual_seed(6);
  LanguageModel model = hybrid_model(6);
  const Tensor tokens = torch::randint(11, {2, 21}, torch::kLong);
  const Tensor inputs = tokens.narrow(1, 0, 20), targets = tokens.narrow(1, 1, 20);
  const Tensor reset = torch::rand({2, 20}) < 0.2;
  const auto gradients = [&](const RecomputePlan& plan) {
    model->set_recompute(plan);
    return torch::autograd::grad({model->loss_of_whole(inputs, targets, {}, reset).total},
                                 model->parameters());
  };
  const auto expected = gradients({});
  for (const RecomputePlan plan : {RecomputePlan{.blocks = 6}, {.mixers = 6}, {2, 2}}) {
    const auto got = gradients(plan);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(torch::equal(got[i], expected[i])) << i;
  }
  const auto [loss, state] = model->loss(inputs, targets, {}, {}, reset);
  EXPECT_TRUE(torch::equal(loss.total, model->loss_of_whole(inputs, targets, {}, reset).total));
}

TEST(Hybrid, ADecoderGoesOnWithAState) {
  torch::manual_seed(7);
  const torch::NoGradGuard no_grad;
  LanguageModel model = hybrid_model();
  const Tensor tokens = torch::randint(11, {3, 20}, torch::kLong);
  const Tensor expected = model->forward(tokens);
  const auto [logits, state] = model->forward(tokens.narrow(1, 0, 12), {});
  const LanguageModelState reserved = model->reserve(state, 8);
  const Tensor before = reserved.layers[2][0].clone();
  const auto decoder = make_module_decoder(model, reserved, logits.select(1, -1));
  for (int64_t t = 12; t < 20; ++t) {
    decoder->read(tokens.select(1, t));
    EXPECT_TRUE(near(decoder->logits(), expected.select(1, t))) << t;
  }
  EXPECT_TRUE(torch::equal(reserved.layers[2][0], before));  // it is the caller's
}

TEST(Hybrid, RowsOfABatchAreWrittenAsIfAlone) {
  torch::manual_seed(8);
  LanguageModel model = hybrid_model();
  const std::vector<std::vector<int32_t>> prompts{{1, 2, 3}, {4}, {4}, {5, 6, 7, 8, 9}};
  const SamplingOptions options{.temperature = 0.9, .top_p = 0.95, .seed = 3};
  std::vector<std::vector<int32_t>> together(prompts.size());
  generate(model, prompts, 12, options, [&](int64_t row, int32_t token) {
    together[size_t(row)].push_back(token);
    return true;
  });
  for (size_t row = 0; row < prompts.size(); ++row) {
    SamplingOptions alone = options;
    alone.seed += row;
    std::vector<int32_t> tokens;
    generate(model, prompts[row], 12, alone, [&](int32_t token) {
      tokens.push_back(token);
      return true;
    });
    EXPECT_EQ(together[row], tokens) << row;
    // Greedy text is what the whole text's logits say.
    if (row > 0) continue;
    std::vector<int64_t> text(prompts[row].begin(), prompts[row].end());
    generate(model, prompts[row], 8, {.temperature = 0}, [&](int32_t token) {
      const torch::NoGradGuard no_grad;
      const Tensor logits = model->forward(torch::tensor(text).unsqueeze(0));
      EXPECT_EQ(logits[0][-1].argmax().item<int64_t>(), token);
      text.push_back(token);
      return true;
    });
  }
}

TEST(Hybrid, OnGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
  torch::manual_seed(9);
  const ModelConfig config{.vocabulary = 501,
                           .width = 256,
                           .layers = 3,
                           .mixer = "rnn*2,attention",
                           .attention = {.key_value_heads = 2}};
  LanguageModel model(config);
  const Tensor tokens = torch::randint(501, {2, 600}, torch::kLong);
  const Tensor reset = torch::rand({2, 600}) < 0.01;
  const torch::NoGradGuard no_grad;
  const Tensor expected = model->forward(tokens, {}, reset).first;
  model->to(torch::kCUDA);
  model->to_precision(torch::kBFloat16);
  const Tensor on_gpu = tokens.to(torch::kCUDA);
  const auto error_of = [&](const Tensor& logits, const Tensor& right) {
    return (logits.to(torch::kFloat).cpu() - right).abs().max().item<double>();
  };
  EXPECT_LT(error_of(model->forward(on_gpu, {}, reset.to(torch::kCUDA)).first, expected), 0.15);
  // From a state, and step by step in graphs, as generate does.
  std::vector<std::vector<int32_t>> written;
  for (int again = 0; again < 2; ++again) {
    written.emplace_back();
    generate(model, std::vector<int32_t>{1, 2, 3}, 20, {.temperature = 0}, [&](int32_t token) {
      written.back().push_back(token);
      return true;
    });
  }
  EXPECT_EQ(written[0], written[1]);
  LanguageModelState state = model->forward(on_gpu.narrow(1, 0, 300), LanguageModelState{}).second;
  state = model->reserve(state, 10);
  const Tensor whole = model->forward(on_gpu.narrow(1, 0, 310)).to(torch::kFloat).cpu();
  for (int64_t t = 300; t < 310; ++t) {
    const Tensor logits = model->step(on_gpu.select(1, t), state);
    EXPECT_LT(error_of(logits, whole.select(1, t)), 0.15) << t;
  }
}

}  // namespace
}  // namespace pararnn::nn
