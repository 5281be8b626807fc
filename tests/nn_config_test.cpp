// What defines a model: patterns of layers, and the config's JSON, in the form of today and in that
// of before mixers had options of their own.
#include <gtest/gtest.h>

#include <random>
#include <utility>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "error_test_support.hpp"
#include "nn/config.hpp"
#include "nn/language_model.hpp"
#include "nn/layer_pattern.hpp"
#include "nn/presets.hpp"

using namespace pararnn;
using namespace pararnn::nn;

namespace {

TEST(LayerPattern, IsNamesEachSoManyTimes) {
  const auto expect_runs = [](const std::string& pattern, const std::vector<LayerRun>& runs) {
    EXPECT_EQ(parse_layer_pattern(pattern), runs) << pattern;
  };
  expect_runs("rnn", {{"rnn", 1}});
  expect_runs("rnn*3,attention", {{"rnn", 3}, {"attention", 1}});
  expect_runs("a,a*2,b*2147483647", {{"a", 1}, {"a", 2}, {"b", kLargestSize}});
  EXPECT_EQ(length_of(parse_layer_pattern("a,b*2,a*3")), 6);
  for (const char* wrong : {"", ",", "a,", ",a", "a,,b", "a*", "a*0", "a*-1", "a*x", "a*2x", "*2",
                            "a**2", "a*2*2", "a*2147483648", "a*99999999999999999999"}) {
    expect_holds(error_of([&] { parse_layer_pattern(wrong); }), "rnn*3");
  }
}

TEST(LayerPattern, IsRepeatedUntilThereAreEnoughLayers) {
  ModelConfig config{.layers = 12, .mixer = "a,b*2,a"};
  std::map<std::string, int64_t> counted;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string mixer = mixer_of_layer(config, layer);
    EXPECT_EQ(mixer, std::string(1, "abba"[layer % 4])) << layer;
    ++counted[mixer];
  }
  EXPECT_EQ(mixers_of(config),
            (std::vector<LayerRun>{{"a", counted.at("a")}, {"b", counted.at("b")}}));
  EXPECT_TRUE(has_mixer(config, "b"));
  EXPECT_FALSE(has_mixer(config, "rnn"));
}

TEST(LayerPattern, CountsTheLayersOfAMixer) {
  const std::vector<LayerRun> runs = parse_layer_pattern("a,b*2,a*3,c");
  const std::string layers = "abbaaac";
  for (const char* mixer : {"a", "b", "c"}) {
    int64_t so_far = 0;
    for (int64_t layer = 0; layer < 25; ++layer) {
      EXPECT_EQ(layers_among(runs, mixer, layer), so_far) << mixer << layer;
      if (layers[size_t(layer) % layers.size()] != *mixer) continue;
      EXPECT_EQ(layer_of(runs, mixer, so_far++), layer) << mixer;
    }
  }
}

TEST(LayerPattern, MakesAModelsLayers) {
  const auto names_of = [](const ModelConfig& config) {
    return LanguageModel(config)->named_parameters().keys();
  };
  ModelConfig config{.width = 8, .layers = 4};
  const auto expected = names_of(config);
  for (const char* same : {"rnn*4", "rnn,rnn", "rnn*3,rnn"}) {
    config.mixer = same;
    EXPECT_EQ(names_of(config), expected) << same;
  }
  for (const char* wrong : {"rnn*3", "rnn*8", "rnn*3,rnn*2"}) {
    config.mixer = wrong;
    expect_holds(error_of([&] { validate(config); }), "layers must be a multiple of");
  }
  config.mixer = "rnn,perceptron";
  expect_holds(error_of([&] { validate(config); }), "unknown mixer 'perceptron': there are rnn");
}

TEST(Config, LayersAreSaidWithTheirHeads) {
  ModelConfig config{.width = 128, .layers = 8, .mixer = "rnn*2,attention,mamba2"};
  EXPECT_EQ(describe_layers(config),
            "4 layers of gru, 2 layers of attention (2 heads), 2 layers of mamba2 (4 heads)");
  config.attention = {.heads = 8, .key_value_heads = 2};
  config.layers = 4;
  config.mamba2.head_channels = 32;
  EXPECT_EQ(describe_layers(config),
            "2 layers of gru, 1 layer of attention (8 heads, 2 of keys and values), 1 layer of "
            "mamba2 (8 heads)");
}

TEST(Config, ComesBackFromJson) {
  std::mt19937_64 random(8);
  for (int i = 0; i < 50; ++i) {
    const int64_t heads = 1 + static_cast<int64_t>(random() % 8);
    const auto cells = built_in_cells();
    const ModelConfig config{.vocabulary = 1 + static_cast<int64_t>(random() % 70000),
                             .width = heads * (1 + static_cast<int64_t>(random() % 64)),
                             .layers = 2 * static_cast<int64_t>(random() % 20),
                             .mixer = random() % 2 ? "rnn" : "rnn*2",
                             .mlp_width = static_cast<int64_t>(random() % 1000),
                             .tie_embedding = random() % 2 == 0,
                             .norm_epsilon = static_cast<double>(1 + random() % 1000) * 1e-8,
                             .rnn = {.cell = std::string(cells[random() % cells.size()].name),
                                     .heads = heads,
                                     .conv_width = 1 + static_cast<int64_t>(random() % 8),
                                     .weight_bound = static_cast<double>(random() % 1000) / 700}};
    EXPECT_EQ(config_from_json(nlohmann::json::parse(to_json(config).dump())), config);
  }
}

TEST(Config, HasTheOptionsOfAMixerUnderItsName) {
  const nlohmann::json expected = {
      {"vocabulary", 257},
      {"width", 768},
      {"layers", 12},
      {"mixer", "rnn"},
      {"mixers",
       {{"rnn", {{"cell", "gru"}, {"heads", 4}, {"conv_width", 4}, {"weight_bound", 0.5}}}}},
      {"mlp_width", 2048},
      {"tie_embedding", false},
      {"norm_epsilon", 1e-5}};
  EXPECT_EQ(to_json(preset("134m")), expected);
}

TEST(Config, OfTheOlderFormIsRead) {
  const ModelConfig expected{
      .vocabulary = 300,
      .width = 12,
      .layers = 2,
      .mlp_width = 24,
      .tie_embedding = false,
      .norm_epsilon = 1e-6,
      .rnn = {.cell = "lstm", .heads = 4, .conv_width = 2, .weight_bound = 0.5}};
  const char* text = R"({
    "cell": "lstm",
    "conv_width": 2,
    "heads": 4,
    "layers": 2,
    "mixer": "rnn",
    "mlp_width": 24,
    "norm_epsilon": 1e-06,
    "tie_embedding": false,
    "vocabulary": 300,
    "weight_bound": 0.5,
    "width": 12
  })";
  EXPECT_EQ(config_from_json(nlohmann::json::parse(text)), expected);
}

TEST(Config, WhatIsMissingHasItsDefault) {
  EXPECT_EQ(config_from_json(nlohmann::json::object()), ModelConfig());
  const ModelConfig config{
      .vocabulary = 300,
      .width = 12,
      .layers = 2,
      .mixer = "rnn*2",
      .mlp_width = 24,
      .tie_embedding = false,
      .norm_epsilon = 1e-6,
      .rnn = {.cell = "lstm", .heads = 4, .conv_width = 2, .weight_bound = 0.5}};
  const nlohmann::json whole = to_json(config), defaults = to_json(ModelConfig());
  for (const std::string place : {"", "/mixers/rnn"}) {
    const nlohmann::json::json_pointer pointer(place);
    for (const auto& [key, value] : whole[pointer].items()) {
      nlohmann::json part = whole, expected = whole;
      part[pointer].erase(key);
      expected[pointer][key] = defaults[pointer][key];
      if (key == "layers") {  // two or four, but not three
        EXPECT_THROW(config_from_json(part), Error);
        continue;
      }
      EXPECT_EQ(to_json(config_from_json(part)), expected) << key;
    }
  }
}

TEST(Config, WrongOnesAreRefusedByName) {
  const nlohmann::json good =
      to_json(ModelConfig{.width = 16, .layers = 2, .rnn = {.cell = "lstm", .heads = 2}});
  const auto sentence_of = [](const nlohmann::json& bad) {
    return error_of([&] { config_from_json(bad, "config.json"); });
  };
  const auto sentence = [&](const std::string& path, const nlohmann::json& value) {
    nlohmann::json bad = good;
    bad[nlohmann::json::json_pointer(path)] = value;
    return sentence_of(bad);
  };
  for (const std::string place : {"", "/mixers", "/mixers/rnn"}) {
    for (const auto& [key, value] : good[nlohmann::json::json_pointer(place)].items()) {
      expect_holds(sentence(place + "/" + key, nlohmann::json::array()), "'" + key + "'");
    }
  }
  expect_holds(sentence("/depth", 3), "config.json has the unknown key 'depth'");
  expect_holds(sentence("/heads", 3), "config.json has the unknown key 'heads'");
  expect_holds(sentence("/mixers/rnn/depth", 3),
               "'rnn' of 'mixers' in config.json has the unknown key 'depth'");
  expect_holds(sentence("/mixers/perceptron", {{"depth", 3}}),
               "'mixers' in config.json has the unknown key 'perceptron'");
  expect_holds(sentence("/width", 0), "width must be from 1");
  expect_holds(sentence("/width", uint64_t{1} << 63), "too large");
  expect_holds(sentence("/width", 16.5), "whole number");
  expect_holds(sentence("/mixer", "perceptron"), "unknown mixer 'perceptron': there are rnn");
  expect_holds(sentence("/mixer", "rnn*3"), "layers must be a multiple of 3");
  expect_holds(sentence("/norm_epsilon", 0), "norm_epsilon");
  expect_holds(sentence("/mixers/rnn/heads", 3), "config.json: rnn.heads must divide width");
  expect_holds(sentence("/mixers/rnn/cell", "perceptron"), "gru");
  expect_holds(sentence("/mixers/rnn/weight_bound", -1), "weight_bound");
  expect_holds(sentence_of(nlohmann::json::array()), "JSON object");
}

TEST(Config, ErrorsCallEachOptionByItsFieldOrByItsFlag) {
  int64_t numbers = 0;
  const auto expect_named = [&](ModelConfig& config, const std::string& owner, auto& options) {
    for_each_option(options, [&](std::string_view key, auto& value, const Option& option) {
      using Value = std::remove_reference_t<decltype(value)>;
      if constexpr (std::is_same_v<Value, int64_t> || std::is_same_v<Value, double>) {
        const Value good = std::exchange(value, -1);
        const std::string field = owner + std::string(key);
        const std::string flag(option.flag.empty() ? field : option.flag);
        EXPECT_TRUE(error_of([&] { validate(config); }).starts_with(field + " must be ")) << field;
        EXPECT_TRUE(
            error_of([&] { validate(config, CalledBy::kFlag); }).starts_with(flag + " must be "))
            << flag;
        value = good;
        ++numbers;
      }
    });
  };
  ModelConfig config{.layers = 3, .mixer = "rnn,attention,mamba2"};
  expect_named(config, "", config);
  for_each_mixer(config, [&](const std::string& mixer, auto& options) {
    expect_named(config, mixer + ".", options);
  });
  EXPECT_GE(numbers, 16);
}

TEST(Config, ErrorsOfSeveralOptionsNameThemAll) {
  struct Case {
    ModelConfig config;
    std::vector<std::string> fields, flags;
  };
  for (const Case& c : std::vector<Case>{
           {{.layers = 2, .mixer = "rnn*3"}, {"layers", "mixer"}, {"--layers", "--mixer"}},
           {{.width = 16, .rnn = {.heads = 3}}, {"rnn.heads", "width"}, {"--heads", "--width"}},
           {{.width = 64, .mixer = "attention", .attention = {.heads = 3}},
            {"width", "attention.heads"},
            {"--width", "--attention-heads"}},
           {{.width = 64, .mixer = "attention", .attention = {.heads = 4, .key_value_heads = 3}},
            {"attention.key_value_heads"},
            {"--key-value-heads"}},
           {{.width = 56, .mixer = "attention", .attention = {.heads = 8}},
            {"width", "attention.heads"},
            {"--width", "--attention-heads"}},
           {{.width = 8, .mixer = "mamba2", .mamba2 = {.head_channels = 5}},
            {"mamba2.head_channels", "mamba2.expand", "width"},
            {"--mamba2-head-channels", "--mamba2-expand", "--width"}},
           {{.width = 8, .mixer = "mamba2", .mamba2 = {.head_channels = 4, .groups = 3}},
            {"mamba2.groups"},
            {"--mamba2-groups"}}}) {
    const std::string by_field = error_of([&] { LanguageModel model(c.config); });
    const std::string by_flag = error_of([&] { validate(c.config, CalledBy::kFlag); });
    EXPECT_EQ(by_field.find("--"), std::string::npos) << by_field;
    for (const std::string& field : c.fields) expect_holds(by_field, field);
    for (const std::string& flag : c.flags) expect_holds(by_flag, flag);
    for (const std::string& field : c.fields) {
      if (field.find('.') == field.npos) continue;
      EXPECT_EQ(by_flag.find(field), std::string::npos) << by_flag;
    }
  }
}

}  // namespace
