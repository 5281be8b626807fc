#include "train/config.hpp"

#include <cmath>
#include <string_view>

#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

/// Random settings within their ranges.
TrainConfig random_config(data::Random& random) {
  TrainConfig config;
  for_each_field(config, [&](std::string_view name, auto& value, const Field& field) {
    if constexpr (std::is_same_v<decltype(value), std::string&>) {
      if (name == "data") value = data::random_text(random, 10);  // the others are one of a few
    } else {
      const double most = std::min(field.most, 1e6);
      value = static_cast<std::remove_reference_t<decltype(value)>>(
          std::uniform_real_distribution(std::max(field.least, 1e-3 * most), most)(random));
    }
  });
  return config;
}

TEST(TrainConfig, ComesBackFromJson) {
  data::Random random(1);
  for (int i = 0; i < 50; ++i) {
    const TrainConfig config = random_config(random);
    const nlohmann::json json = nlohmann::json::parse(to_json(config).dump());
    EXPECT_EQ(to_json(train_config_from_json(json)), to_json(config));
  }
}

TEST(TrainConfig, AMissingKeyHasItsDefault) {
  data::Random random(3);
  const nlohmann::json defaults = to_json(TrainConfig());
  const nlohmann::json all = to_json(random_config(random));
  for (const auto& [key, value] : all.items()) {
    if (key == "steps" || key == "minutes") continue;
    nlohmann::json older = all, expected = all;
    older.erase(key);
    expected[key] = defaults.at(key);
    EXPECT_EQ(to_json(train_config_from_json(older)), expected) << key;
  }
}

TEST(TrainConfig, EveryBadFieldIsNamed) {
  data::Random random(2);
  TrainConfig config = random_config(random);
  for_each_field(config, [&](std::string_view name, auto& value, const Field& field) {
    const nlohmann::json good = to_json(config);
    const std::string key(name);
    nlohmann::json bad = good;
    bad[key] = nlohmann::json::array();
    expect_error([&] { train_config_from_json(bad); }, {name});
    using Value = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, std::string> || std::is_same_v<Value, bool>) return;
    for (const double outside : {field.least - 1, 2 * field.most + 1}) {
      bad[key] = std::is_same_v<decltype(value), int64_t&>
                     ? nlohmann::json(static_cast<int64_t>(outside))
                     : nlohmann::json(outside);
      expect_error([&] { train_config_from_json(bad); }, {option_name(name)});
    }
  });
  nlohmann::json unknown = to_json(config);
  unknown["learning_speed"] = 1;
  expect_error([&] { train_config_from_json(unknown); }, {"learning_speed"});
  config.data = "caf\xe9";
  expect_error([&] { require_valid(config); }, {"--data", "UTF-8"});
  config.data = "caf\xc3\xa9";
  require_valid(config);
  config.precision = "float3";
  expect_error([&] { require_valid(config); }, {"--precision", "float3"});
  config.precision = "float32";
  config.recompute = "some";
  expect_error([&] { require_valid(config); }, {"--recompute", "some", "none, mixer, block, auto"});
  config.recompute = "block";
  config.plan = "fast";
  expect_error([&] { require_valid(config); }, {"'fast'", "newton"});
  config.plan = "newton";
  config.graph = "yes";
  expect_error([&] { require_valid(config); }, {"--graph", "yes", "auto", "off"});
  config.graph = "off";
  config.tolerance = NAN;
  expect_error([&] { require_valid(config); }, {"--tolerance is nan"});
}

}  // namespace
}  // namespace pararnn::train
