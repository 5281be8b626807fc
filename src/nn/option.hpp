// A value of a config, as it is said on the command line and kept in JSON. A struct of such values
// has one list of them, a function template for_each_option(options, visit), which calls
// visit(key, value, Option) for each; all that is done with the values goes through it.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.hpp"

namespace pararnn::nn {

/// The largest whole number that a config may give.
inline constexpr int64_t kLargestSize = (int64_t{1} << 31) - 1;

/// What is said and asked of a value.
struct Option {
  std::string_view flag{};     // on the command line; empty: it is not given there
  std::string_view meaning{};  // of the flag
  double least = 0;            // of a number; a whole number is at most kLargestSize
  bool is_cell = false;        // a name or a file, as find_cell takes it
};

/// Options or const Options.
template <class T, class Options>
concept MaybeConst = std::same_as<std::remove_const_t<T>, Options>;

/// Throws Error, which calls the value `name`, unless it is in the option's range.
void check(std::string_view name, int64_t value, const Option& option);
void check(std::string_view name, double value, const Option& option);
inline void check(std::string_view, bool, const Option&) {}
inline void check(std::string_view, const std::string&, const Option&) {}

/// The value in `json`, which errors call `name`. Throws Error on a wrong type.
void read(const nlohmann::json& json, int64_t& value, const std::string& name);
void read(const nlohmann::json& json, double& value, const std::string& name);
void read(const nlohmann::json& json, bool& value, const std::string& name);
void read(const nlohmann::json& json, std::string& value, const std::string& name);

/// Throws Error with the first value that is not in its option's range; `name(value)` is what it
/// calls it.
template <class Options, class Name>
void check_options(const Options& options, const Name& name) {
  for_each_option(options, [&](std::string_view, const auto& value, const Option& option) {
    check(name(value), value, option);
  });
}

/// Calls visit(cell) for each value that names one.
template <class Options, class Visit>
void for_each_cell(Options& options, Visit&& visit) {
  for_each_option(options, [&](std::string_view, auto& value, const Option& option) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, std::string>) {
      if (option.is_cell) visit(value);
    }
  });
}

template <class Options>
nlohmann::json options_to_json(const Options& options) {
  nlohmann::json json = nlohmann::json::object();
  for_each_option(options, [&](std::string_view key, const auto& value, const Option&) {
    json[std::string(key)] = value;
  });
  return json;
}

/// Reads the values that a JSON object has into `options`; the others stay as they are. `place` is
/// where it stands, as "'config.json'". Throws Error on an unknown key or a wrong type.
template <class Options>
void read_options(const nlohmann::json& json, Options& options, const std::string& place) {
  require(json.is_object(), "{} must be a JSON object, not {}", place, json.dump());
  size_t known = 0;
  for_each_option(options, [&](std::string_view key, auto& value, const Option&) {
    const auto found = json.find(key);
    if (found == json.end()) return;
    read(*found, value, fmt::format("'{}' in {}", key, place));
    ++known;
  });
  if (known == json.size()) return;
  const nlohmann::json expected = options_to_json(options);
  for (const auto& [key, value] : json.items()) {
    require(expected.contains(key), "{} has the unknown key '{}'", place, key);
  }
}

}  // namespace pararnn::nn
