#include "train/config.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <type_traits>

#include "base/error.hpp"
#include "data/utf8.hpp"
#include "train/schedule.hpp"

namespace pararnn::train {

std::string option_name(std::string_view key) {
  std::string name = "--" + std::string(key);
  std::ranges::replace(name, '_', '-');
  return name;
}

torch::ScalarType precision_dtype(const std::string& precision) {
  if (precision == "float32") return torch::kFloat32;
  if (precision == "bfloat16") return torch::kBFloat16;
  throw Error(fmt::format("--precision is \"{}\", but must be float32 or bfloat16", precision));
}

RecomputeChoice recompute_choice(const std::string& recompute) {
  const auto found = std::ranges::find(kRecomputeNames, recompute);
  require(found != kRecomputeNames.end(), "--recompute is \"{}\", but must be {}", recompute,
          fmt::join(kRecomputeNames, ", "));
  return static_cast<RecomputeChoice>(found - kRecomputeNames.begin());
}

nlohmann::json to_json(const TrainConfig& config) {
  nlohmann::json json;
  for_each_field(config, [&](std::string_view name, const auto& value, const Field&) {
    json[std::string(name)] = value;
  });
  return json;
}

TrainConfig train_config_from_json(const nlohmann::json& json) {
  require(json.is_object(), "the training options are not a JSON object");
  TrainConfig config;
  std::set<std::string, std::less<>> known;
  for_each_field(config, [&](std::string_view name, auto& value, const Field&) {
    known.emplace(name);
    const auto found = json.find(name);
    if (found == json.end()) return;
    using Value = std::remove_reference_t<decltype(value)>;
    const bool right_type = std::is_same_v<Value, std::string> ? found->is_string()
                            : std::is_same_v<Value, bool>      ? found->is_boolean()
                            : std::is_integral_v<Value>        ? found->is_number_integer()
                                                               : found->is_number();
    require(right_type, "the training option \"{}\" has the wrong type: {}", name, found->dump());
    value = found->template get<Value>();
  });
  for (const auto& [key, value] : json.items()) {
    require(known.contains(key), "\"{}\" is no training option", key);
  }
  require_valid(config);
  return config;
}

void require_valid(const TrainConfig& config) {
  for_each_field(config, [](std::string_view name, const auto& value, const Field& field) {
    if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(value)>>) {
      const auto number = static_cast<double>(value);
      require(number >= field.least && number <= field.most,
              "{} is {}, but must lie between {} and {}", option_name(name), value, field.least,
              field.most);
    } else if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, std::string>) {
      require(
          data::is_utf8(value),
          "{} is {}, which is not UTF-8, as what a run writes down must be: give it another name",
          option_name(name), value);
    }
  });
  require(config.steps > 0 || config.minutes > 0,
          "nothing says how long to train: give --steps or --minutes");
  precision_dtype(config.precision);
  recompute_choice(config.recompute);
  const bool decays_at_the_end =
      schedule_shape(config.schedule) == ScheduleShape::kWarmupStableDecay;
  require(!decays_at_the_end || config.warmup + config.decay <= 1,
          "--warmup is {} and --decay {}, which is more than the whole run: together they may be 1",
          config.warmup, config.decay);
  require(std::ranges::find(kGraphNames, config.graph) != std::end(kGraphNames),
          "--graph is \"{}\", but must be auto or off", config.graph);
  check_plan_options(config.plan, /*chunk=*/0, /*burn_in=*/-1);
}

void require_resumable(const TrainConfig& stored, const TrainConfig& wanted) {
  const nlohmann::json before = to_json(stored);
  for_each_field(wanted, [&](std::string_view name, const auto& value, const Field& field) {
    require(!field.fixed || before.at(std::string(name)) == nlohmann::json(value),
            "{} is {}, but the run to resume was started with {}: leave the option out, or start a "
            "new run",
            option_name(name), value, before.at(std::string(name)).dump());
  });
}

}  // namespace pararnn::train
