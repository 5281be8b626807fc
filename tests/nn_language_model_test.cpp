// The language model as a whole: reading a text at once, in pieces and token by token is one thing;
// no token sees a later one; the config and the files give the model back; sampling keeps to its
// limits.
#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/nn/functional/loss.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include "cells/cell_registry.hpp"

#include "base/error.hpp"
#include "error_test_support.hpp"
#include "nn/decoder.hpp"
#include "nn/fused_decoder.hpp"
#include "nn/generate.hpp"
#include "nn/language_model.hpp"
#include "nn/model_files.hpp"

using namespace pararnn;
using namespace pararnn::nn;
using torch::Tensor;

namespace {

ModelConfig small_config(std::string_view cell = "gru", int64_t heads = 2) {
  return {.vocabulary = 11,
          .width = 16,
          .layers = 2,
          .rnn = {.cell = std::string(cell), .heads = heads}};
}

/// A model in fp64, where two ways to the same number agree to many digits.
LanguageModel exact_model(const ModelConfig& config) {
  LanguageModel model(config);
  model->to(torch::kDouble);
  return model;
}

Tensor random_tokens(const ModelConfig& config, int64_t batch, int64_t steps) {
  return torch::randint(config.vocabulary, {batch, steps}, torch::kLong);
}

struct TemporaryFolder {
  std::filesystem::path path = std::filesystem::temp_directory_path() /
                               ("pararnn-" + std::to_string(std::random_device()()));
  TemporaryFolder() { std::filesystem::create_directories(path); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

TEST(Documents, AreReadAsIfAloneByEveryMixer) {
  torch::manual_seed(4);
  torch::NoGradGuard no_grad;
  const std::vector<int64_t> starts{0, 1, 12, 128, 130, 200};  // beside the chunks of mamba2, too
  constexpr int64_t kAfter = 5;
  std::vector<std::string> patterns = mixer_names();
  patterns.emplace_back("rnn,attention,mamba2");
  for (const std::string& pattern : patterns) {
    SCOPED_TRACE(pattern);
    ModelConfig config = small_config();
    config.layers = 3;
    config.mixer = pattern;
    config.attention = {.heads = 2, .key_value_heads = 1};
    config.mamba2 = {.head_channels = 8, .state = 5, .groups = 2};
    auto model = exact_model(config);
    const Tensor tokens = random_tokens(config, 2, starts.back() + kAfter);
    const Tensor text = tokens.slice(1, 0, starts.back()), after = tokens.slice(1, starts.back());
    Tensor reset = torch::zeros(text.sizes(), torch::kBool);
    std::vector<Tensor> alone;
    LanguageModelState last;
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      if (i > 0) reset.select(1, starts[i]).fill_(true);
      auto [logits, state] =
          model->forward(text.slice(1, starts[i], starts[i + 1]), LanguageModelState{});
      alone.push_back(logits);
      last = state;
    }
    const auto [logits, state] = model->forward(text, {}, reset);
    EXPECT_TRUE(torch::allclose(logits, torch::cat(alone, 1), 1e-10, 1e-10));
    EXPECT_TRUE(torch::allclose(model->forward(after, state).first,
                                model->forward(after, last).first, 1e-10, 1e-10));
    for (size_t layer = 0; layer < last.layers.size(); ++layer) {
      const MixerState &found = state.layers[layer], &expected = last.layers[layer];
      // Attention also keeps what it no longer looks at.
      if (found[0].sizes() != expected[0].sizes()) continue;
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_TRUE(torch::allclose(found[i], expected[i], 1e-10, 1e-10)) << layer << " " << i;
      }
    }
  }
}

TEST(Documents, AreCountedOnceForAllLayers) {
  torch::NoGradGuard no_grad;
  static int64_t sums;
  const auto sums_of_model = [](int64_t layers) {
    ModelConfig config = small_config();
    config.layers = layers;
    LanguageModel model(config);
    const Tensor tokens = random_tokens(config, 2, 20), reset = torch::rand({2, 20}) < 0.2;
    sums = 0;
    model->forward(tokens, {}, reset);
    return sums;
  };
  const auto count = [](const at::RecordFunction& function) {
    sums += std::string_view(function.name()) == "aten::cumsum";
    return std::unique_ptr<at::ObserverContext>();
  };
  const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(count));
  EXPECT_EQ(sums_of_model(1), 1);
  EXPECT_EQ(sums_of_model(4), 1);
  at::removeCallback(handle);
}

TEST(LanguageModel, ATextOfNoTokensChangesNothing) {
  torch::manual_seed(5);
  const torch::NoGradGuard no_grad;
  for (const std::string& mixer : mixer_names()) {
    SCOPED_TRACE(mixer);
    ModelConfig config = small_config();
    config.mixer = mixer;
    config.mamba2 = {.head_channels = 8, .state = 3};
    auto model = exact_model(config);
    const Tensor tokens = random_tokens(config, 2, 12);
    LanguageModelState state;
    std::vector<Tensor> pieces;
    for (const auto& [begin, end] : {std::pair{0, 0}, {0, 7}, {7, 7}, {7, 12}}) {
      auto [logits, after] = model->forward(tokens.slice(1, begin, end), state);
      EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2, end - begin, config.vocabulary}));
      pieces.push_back(logits);
      state = after;
    }
    EXPECT_TRUE(torch::allclose(torch::cat(pieces, 1), model->forward(tokens), 1e-10, 1e-10));
    const Tensor none = torch::zeros({0, 4}, torch::kLong);
    EXPECT_EQ(model->forward(none).sizes(), (std::vector<int64_t>{0, 4, config.vocabulary}));
  }
}

TEST(LanguageModel, LossIsThatOfItsLogits) {
  torch::manual_seed(12);
  for (const bool tied : {true, false}) {
    ModelConfig config = small_config();
    config.tie_embedding = tied;
    auto model = exact_model(config);
    const Tensor tokens = random_tokens(config, 3, 20), targets = random_tokens(config, 3, 20);
    const Tensor reset = torch::rand({3, 20}) < 0.2;
    LanguageModelState before;
    {
      const torch::NoGradGuard no_gradient;
      before = model->forward(random_tokens(config, 3, 5), LanguageModelState{}).second;
    }
    const auto gradients_of = [&](const Tensor& total) {
      return torch::autograd::grad({total}, model->parameters());
    };
    const auto [loss, after] = model->loss(tokens, targets, {.z_loss = 0.1}, before, reset);
    const auto [logits, expected_after] = model->forward(tokens, before, reset);
    const Tensor cross_entropy =
        torch::nn::functional::cross_entropy(logits.flatten(0, 1), targets.flatten());
    EXPECT_TRUE(torch::allclose(loss.cross_entropy, cross_entropy, 1e-10, 1e-10));
    EXPECT_TRUE(torch::equal(after.layers[0][0], expected_after.layers[0][0]));
    const auto gradients = gradients_of(loss.total);
    const auto expected = gradients_of(cross_entropy + 0.1 * logits.logsumexp(-1).square().mean());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(torch::allclose(gradients[i], expected[i], 1e-8, 1e-10)) << i;
    }
  }
}

class EveryCell : public testing::TestWithParam<CellDefinition> {};

TEST_P(EveryCell, StepByStepEqualsTheWholeText) {
  torch::manual_seed(1);
  torch::NoGradGuard no_grad;
  for (const int64_t heads : {1, 4}) {
    const ModelConfig config = small_config(GetParam().name, heads);
    auto model = exact_model(config);
    const Tensor tokens = random_tokens(config, 3, 40);
    const Tensor expected = model->forward(tokens);
    LanguageModelState state;
    for (int64_t t = 0; t < tokens.size(1); ++t) {
      const Tensor logits = model->step(tokens.select(1, t), state);
      ASSERT_TRUE(torch::allclose(logits, expected.select(1, t), 1e-8, 1e-8)) << "step " << t;
    }
  }
}

TEST_P(EveryCell, PiecesEqualTheWholeText) {
  torch::manual_seed(2);
  torch::NoGradGuard no_grad;
  const ModelConfig config = small_config(GetParam().name);
  auto model = exact_model(config);
  const Tensor tokens = random_tokens(config, 2, 30);
  const auto [expected, expected_state] = model->forward(tokens, LanguageModelState{});
  const auto [first, state] = model->forward(tokens.narrow(1, 0, 13), LanguageModelState{});
  const auto [second, last_state] = model->forward(tokens.narrow(1, 13, 17), state);
  EXPECT_TRUE(torch::allclose(torch::cat({first, second}, 1), expected, 1e-8, 1e-8));
  for (size_t layer = 0; layer < expected_state.layers.size(); ++layer) {
    for (size_t i = 0; i < expected_state.layers[layer].size(); ++i) {
      EXPECT_TRUE(torch::allclose(last_state.layers[layer][i], expected_state.layers[layer][i],
                                  1e-8, 1e-8));
    }
  }
}

TEST_P(EveryCell, NoTokenSeesALaterOne) {
  torch::manual_seed(3);
  torch::NoGradGuard no_grad;
  const ModelConfig config = small_config(GetParam().name);
  auto model = exact_model(config);
  const Tensor tokens = random_tokens(config, 2, 24);
  const Tensor logits = model->forward(tokens);
  for (const int64_t t : {0, 5, 23}) {
    Tensor changed = tokens.clone();
    changed.select(1, t).copy_((changed.select(1, t) + 1) % config.vocabulary);
    const Tensor after = model->forward(changed);
    EXPECT_TRUE(torch::equal(after.narrow(1, 0, t), logits.narrow(1, 0, t)));
    EXPECT_FALSE(torch::allclose(after.select(1, t), logits.select(1, t)));
  }
}

INSTANTIATE_TEST_SUITE_P(Cells, EveryCell, testing::ValuesIn(built_in_cells()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(LanguageModel, EveryParameterHasAGradient) {
  torch::manual_seed(4);
  for (const bool tied : {true, false}) {
    ModelConfig config = small_config();
    config.tie_embedding = tied;
    LanguageModel model(config);
    EXPECT_EQ(model->named_parameters().contains("output"), !tied);
    const Tensor tokens = random_tokens(config, 2, 9);
    torch::nn::functional::cross_entropy(model->forward(tokens).flatten(0, 1), tokens.flatten())
        .backward();
    for (const auto& item : model->named_parameters()) {
      ASSERT_TRUE(item.value().grad().defined()) << item.key();
      EXPECT_GT(item.value().grad().abs().sum().item<double>(), 0) << item.key();
    }
  }
}

TEST(LanguageModel, ReducedPrecisionIsNearTheFull) {
  torch::manual_seed(5);
  torch::NoGradGuard no_grad;
  LanguageModel model(small_config());
  const Tensor tokens = random_tokens(model->config(), 4, 50);
  const Tensor full = model->forward(tokens);
  model->to_precision(torch::kBFloat16);
  const Tensor reduced = model->forward(tokens);
  EXPECT_EQ(reduced.scalar_type(), torch::kBFloat16);
  EXPECT_FALSE(torch::equal(reduced, full));
  EXPECT_LT((reduced - full).abs().mean().item<double>(), 0.02 * full.abs().mean().item<double>());
}

TEST(LanguageModel, TheSeedGivesTheWeights) {
  const auto weights = [](int64_t seed) {
    torch::manual_seed(seed);
    return parameters_of(LanguageModel(small_config()));
  };
  const auto first = weights(1), again = weights(1), other = weights(2);
  for (const auto& [name, tensor] : first)
    EXPECT_TRUE(torch::equal(tensor, again.at(name))) << name;
  EXPECT_FALSE(torch::equal(first.at("embedding"), other.at("embedding")));
}

TEST(LanguageModel, GatesStartWithASpreadOfMemories) {
  torch::manual_seed(6);
  for (const CellDefinition& cell : built_in_cells()) {
    ModelConfig config = small_config(cell.name, 1);
    config.width = 256;
    LanguageModel model(config);
    const Tensor bias =
        model->named_parameters()["block0.mixer.projection.bias"].view({cell.inputs, config.width});
    EXPECT_FALSE(bias.slice(0, 1).any().item<bool>());
    if (cell.name == "elman") {
      EXPECT_FALSE(bias.any().item<bool>());
      continue;
    }
    // A cell whose first gate forgets has positive biases; one whose first gate updates, negative
    // ones.
    const Tensor memory = 1 + torch::exp(cell.name == "gru" ? -bias[0] : bias[0]);
    EXPECT_LT(memory.min().item<double>(), 4);
    EXPECT_GT(memory.max().item<double>(), 64);
    EXPECT_LE(memory.max().item<double>(), 129);
  }
}

TEST(LanguageModel, ClippingBoundsTheRecurrentWeightsAlone) {
  torch::manual_seed(7);
  ModelConfig config = small_config();
  config.rnn.weight_bound = 0.25;
  LanguageModel model(config);
  torch::NoGradGuard no_grad;
  for (Tensor& parameter : model->parameters()) parameter.mul_(100);
  const auto before = parameters_of(model);
  std::map<std::string, Tensor> copies;
  for (const auto& [name, tensor] : before) copies[name] = tensor.clone();
  model->clip_weights();
  for (const auto& [name, tensor] : parameters_of(model)) {
    if (name.ends_with("recurrent_weight")) {
      EXPECT_EQ(tensor.abs().max().item<float>(), 0.25f) << name;
    } else {
      EXPECT_TRUE(torch::equal(tensor, copies[name])) << name;
    }
  }
}

TEST(LanguageModel, DecayIsForMatricesOnly) {
  ModelConfig config = small_config();
  config.tie_embedding = false;
  LanguageModel model(config);
  for (const auto& item : model->named_parameters()) {
    const std::string& name = item.key();
    const bool is_matrix = name == "embedding" || name == "output" ||
                           name.ends_with("put.weight") || name.ends_with("projection.weight") ||
                           name.ends_with("convolution.weight");
    EXPECT_EQ(model->decays(name, item.value()), is_matrix) << name;
  }
}

TEST(LanguageModel, WrongTokensAreRefused) {
  LanguageModel model(small_config());
  expect_holds(error_of([&] { model->forward(torch::tensor({{1, 11}})); }), "from 0 to 10");
  expect_holds(error_of([&] { model->forward(torch::tensor({{-1, 1}})); }), "from 0 to 10");
  expect_holds(error_of([&] { model->forward(torch::tensor({1, 2})); }), "(batch, steps)");
  expect_holds(error_of([&] { model->forward(torch::ones({1, 2})); }), "int32 or int64");
}

TEST(ModelFiles, GiveTheModelBack) {
  torch::manual_seed(9);
  const TemporaryFolder folder;
  for (const bool tied : {true, false}) {
    ModelConfig config = small_config();
    config.tie_embedding = tied;
    LanguageModel model(config);
    save_language_model(folder.path, model);
    LanguageModel loaded = load_language_model(folder.path);
    EXPECT_EQ(loaded->config(), config);
    const Tensor tokens = random_tokens(config, 2, 12);
    EXPECT_TRUE(torch::equal(loaded->forward(tokens), model->forward(tokens)));
  }
}

TEST(ModelFiles, OfTheOlderFormGiveTheModelBack) {
  torch::manual_seed(9);
  const TemporaryFolder folder;
  const ModelConfig config = small_config("lstm");
  LanguageModel model(config);
  save_language_model(folder.path, model);
  std::ofstream(folder.path / "config.json")
      << R"({"cell": "lstm", "conv_width": 4, "heads": 2, "layers": 2, "mixer": "rnn",
             "mlp_width": 0, "norm_epsilon": 1e-05, "tie_embedding": true, "vocabulary": 11,
             "weight_bound": 0.0, "width": 16})";
  LanguageModel loaded = load_language_model(folder.path);
  EXPECT_EQ(loaded->config(), config);
  const Tensor tokens = random_tokens(config, 2, 12);
  EXPECT_TRUE(torch::equal(loaded->forward(tokens), model->forward(tokens)));
}

TEST(ModelFiles, WrongOnesAreRefusedByName) {
  const TemporaryFolder folder;
  expect_holds(error_of([&] { load_language_model(folder.path); }), "there is no model in");
  LanguageModel model(small_config());
  save_language_model(folder.path, model);
  const auto weights = folder.path / "model.safetensors";
  const auto sentence_with =
      [&](const std::function<void(std::map<std::string, Tensor>&)>& change) {
        auto tensors = parameters_of(model);
        change(tensors);
        save_safetensors(weights, {.tensors = tensors, .metadata = {}});
        return error_of([&] { load_language_model(folder.path); });
      };
  expect_holds(sentence_with([](auto& tensors) { tensors.erase("embedding"); }),
               "lacks the tensor 'embedding'");
  expect_holds(sentence_with([](auto& tensors) { tensors["more"] = torch::ones(1); }), "'more'");
  expect_holds(sentence_with([](auto& tensors) {
                 tensors["embedding"] = torch::ones({2, 3});
               }),
               "(2,3)");
  expect_holds(sentence_with([](auto& tensors) {
                 tensors["embedding"] = tensors["embedding"].to(torch::kInt);
               }),
               "floating-point");
  save_language_model(folder.path, model);
  nlohmann::json config = to_json(small_config());
  config["width"] = 2 * small_config().width;
  std::ofstream(folder.path / "config.json") << config;
  expect_holds(error_of([&] { load_language_model(folder.path); }),
               "config.json beside it tells of another model");
  config["mixers"]["rnn"]["cell"] = (folder.path / "other.hpp").string();
  std::ofstream(folder.path / "config.json") << config;
  expect_holds(error_of([&] { load_language_model(folder.path, /*trust_cell=*/true); }),
               "must be a name");
  std::ofstream(folder.path / "config.json") << "{";
  expect_holds(error_of([&] { load_language_model(folder.path); }), "no valid JSON");
}

/// A token drawn from logits (V).
int64_t draw(Sampler& sampler, const Tensor& logits) {
  sampler.draw(logits.unsqueeze(0));
  return sampler.tokens().item<int64_t>();
}
int64_t draw_once(const SamplingOptions& options, const Tensor& logits) {
  Sampler sampler(options);
  return draw(sampler, logits);
}

TEST(Sampler, KeepsToItsLimits) {
  torch::manual_seed(10);
  for (int i = 0; i < 20; ++i) {
    const Tensor logits = torch::randn(50) * 3;
    const int64_t best = logits.argmax().item<int64_t>();
    EXPECT_EQ(draw_once({.temperature = 0}, logits), best);
    EXPECT_EQ(draw_once({.temperature = 1e-6, .seed = uint64_t(i)}, logits), best);
    EXPECT_EQ(draw_once({.top_p = 1e-9, .seed = uint64_t(i)}, logits), best);

    // The tokens that may come with top-p: all whose likelier ones do not reach it by themselves.
    const double top_p = 0.6;
    const Tensor probability = torch::softmax(logits.to(torch::kDouble), 0);
    Sampler sampler({.top_p = top_p, .seed = uint64_t(i)});
    for (int n = 0; n < 200; ++n) {
      const int64_t token = draw(sampler, logits);
      const double likelier =
          probability.masked_select(probability > probability[token]).sum().item<double>();
      ASSERT_LT(likelier, top_p);
    }
  }
}

TEST(Sampler, DrawsByProbability) {
  const double temperature = 0.7;
  const Tensor logits = torch::tensor({0.0, 1.0, -1.0, 0.5});
  const Tensor probability = torch::softmax(logits / temperature, 0);
  Sampler sampler({.temperature = temperature, .seed = 3});
  const int draws = 20000;
  Tensor counts = torch::zeros(4);
  for (int i = 0; i < draws; ++i) counts[draw(sampler, logits)] += 1;
  // Five standard deviations of a binomial.
  const Tensor deviation = (probability * (1 - probability) / draws).sqrt();
  EXPECT_TRUE(((counts / draws - probability).abs() < 5 * deviation).all().item<bool>());
}

TEST(Sampler, ARowDrawsWhatItDrawsAlone) {
  torch::manual_seed(12);
  const int64_t rows = 5;
  Sampler together({.top_p = 0.9, .seed = 7}, rows);
  std::vector<Sampler> alone;
  for (int64_t row = 0; row < rows; ++row) {
    alone.emplace_back(SamplingOptions{.top_p = 0.9, .seed = 7 + uint64_t(row)});
  }
  bool differ = false;
  for (int n = 0; n < 40; ++n) {
    const Tensor logits = torch::randn({1, 30}).expand({rows, 30});
    together.draw(logits);
    const std::vector<int32_t> drawn = together.drawn(n);
    for (int64_t row = 0; row < rows; ++row) {
      EXPECT_EQ(draw(alone[size_t(row)], logits[row]), drawn[size_t(row)]);
      differ = differ || drawn[size_t(row)] != drawn[0];
    }
  }
  EXPECT_TRUE(differ);
}

TEST(Sampler, RefusesWhatItCannotDo) {
  EXPECT_THROW(Sampler({.temperature = -1}), Error);
  EXPECT_THROW(Sampler({.temperature = NAN}), Error);
  EXPECT_THROW(Sampler({.top_p = 0}), Error);
  EXPECT_THROW(Sampler({.top_p = 1.5}), Error);
  for (const double wrong : {std::nan(""), double(INFINITY)}) {
    Sampler sampler({});
    sampler.draw(torch::tensor({0.0, wrong}).unsqueeze(0));
    EXPECT_THROW(sampler.drawn(0), Error);
  }
}

/// Decodes by modules and by the kernels' definitions, and by reading all at once.
void expect_decoders_go_on(const ModelConfig& config) {
  LanguageModel model(config);
  for (const Tensor& weight : model->parameters()) {  // numbers that bfloat16 has
    weight.copy_(weight.to(torch::kBFloat16));
  }
  ASSERT_TRUE(has_fused_decoder(config));
  const Tensor tokens = random_tokens(config, 3, 20);
  auto [logits, state] = model->forward(tokens.narrow(1, 0, 12), {});
  state = model->reserve(state, 8);
  const auto modules = make_module_decoder(model, state, logits.select(1, -1));
  const auto kernels = make_fused_decoder(model, state, logits.select(1, -1));
  const Tensor expected = model->forward(tokens);
  const Tensor* places[] = {&modules->logits(), &kernels->logits()};
  for (int64_t t = 12; t < 20; ++t) {
    modules->read(tokens.select(1, t));
    kernels->read(tokens.select(1, t));
    EXPECT_LT((modules->logits() - expected.select(1, t)).abs().max().item<double>(), 1e-5);
    EXPECT_LT((kernels->logits() - expected.select(1, t)).abs().max().item<double>(), 0.05);
  }
  EXPECT_EQ(places[0], &modules->logits());
  EXPECT_EQ(places[1], &kernels->logits());
}

TEST(Decoder, GoesOnAsTheModelDoes) {
  torch::NoGradGuard no_grad;
  for (const char* cell : {"gru", "lstm"}) {
    for (const bool tied : {false, true}) {
      SCOPED_TRACE(testing::Message() << cell << (tied ? ", tied" : ""));
      torch::manual_seed(14);
      ModelConfig config = small_config(cell);
      config.width = 64;
      config.rnn.conv_width = tied ? 3 : 4;
      config.tie_embedding = tied;
      expect_decoders_go_on(config);
    }
  }
}

TEST(Decoder, GoesOnAsModelsOfAnyMixersDo) {
  torch::NoGradGuard no_grad;
  for (const char* mixer : {"attention", "mamba2", "rnn,attention,mamba2"}) {
    SCOPED_TRACE(mixer);
    torch::manual_seed(15);
    ModelConfig config = small_config();
    config.width = 64;
    config.layers = 3;
    config.mixer = mixer;
    config.attention.heads = 4;
    config.attention.key_value_heads = 2;
    config.mamba2.groups = 2;
    expect_decoders_go_on(config);
  }
}

TEST(Decoder, OfAttentionWantsRoom) {
  torch::NoGradGuard no_grad;
  ModelConfig config = small_config();
  config.width = 64;
  config.mixer = "attention";
  LanguageModel model(config);
  const auto [logits, state] = model->forward(random_tokens(config, 2, 5), {});
  EXPECT_THROW(make_fused_decoder(model, state, logits.select(1, -1)), Error);
}

TEST(Generate, TheSeedGivesTheText) {
  torch::manual_seed(11);
  LanguageModel model(small_config());
  const std::vector<int32_t> prompt{1, 2, 3};
  const auto text = [&](const SamplingOptions& options, int64_t count = 60) {
    std::vector<int32_t> tokens;
    generate(model, prompt, count, options,
             [&](int32_t token) { return tokens.push_back(token), true; });
    return tokens;
  };
  EXPECT_EQ(text({.seed = 1}), text({.seed = 1}));
  EXPECT_NE(text({.seed = 1}), text({.seed = 2}));
  EXPECT_EQ(text({}).size(), 60u);
  EXPECT_TRUE(text({}, 0).empty());

  // At temperature 0 each token is the likeliest after all before it.
  std::vector<int64_t> read(prompt.begin(), prompt.end());
  for (const int32_t token : text({.temperature = 0}, 20)) {
    const Tensor logits = model->forward(torch::tensor(read).unsqueeze(0)).select(1, -1)[0];
    EXPECT_NEAR(logits[token].item<double>(), logits.max().item<double>(), 1e-5);
    read.push_back(token);
  }
}

TEST(Generate, ARowOfABatchIsWhatItWouldBeAlone) {
  torch::manual_seed(13);
  LanguageModel model = exact_model(small_config());
  // Of unlike length, and two alike.
  const std::vector<std::vector<int32_t>> prompts{{1, 2, 3}, {4}, {4}, {5, 6, 7, 8, 9}};
  const SamplingOptions options{.temperature = 0.9, .top_p = 0.95, .seed = 3};
  std::vector<std::vector<int32_t>> rows(prompts.size());
  generate(model, prompts, 50, options, [&](int64_t row, int32_t token) {
    rows[size_t(row)].push_back(token);
    return token != 10;  // ends its row alone
  });
  for (size_t row = 0; row < prompts.size(); ++row) {
    std::vector<int32_t> alone;
    SamplingOptions own = options;
    own.seed += row;
    generate(model, prompts[row], 50, own,
             [&](int32_t token) { return alone.push_back(token), token != 10; });
    EXPECT_EQ(rows[row], alone) << row;
    EXPECT_GT(alone.size(), 0u);
  }
  EXPECT_NE(rows[1], rows[2]);
}

TEST(Generate, LogitsThatAreNoNumbersAreSaid) {
  LanguageModel model(small_config());
  torch::NoGradGuard no_grad;
  model->named_parameters()["norm.weight"].fill_(std::nan(""));
  const std::vector<int32_t> prompt{1};
  expect_holds(error_of([&] { generate(model, prompt, 5, {}, [](int32_t) { return true; }); }),
               "not numbers");
}

TEST(Generate, StopsWhenToldAndRefusesAnEmptyPrompt) {
  LanguageModel model(small_config());
  const std::vector<int32_t> prompt{1};
  int calls = 0;
  generate(model, prompt, 100, {}, [&](int32_t) { return ++calls < 5; });
  EXPECT_EQ(calls, 5);
  EXPECT_THROW(generate(model, {}, 1, {}, [](int32_t) { return true; }), Error);
}

}  // namespace
