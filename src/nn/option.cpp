#include "nn/option.hpp"

namespace pararnn::nn {

void check(std::string_view name, int64_t value, const Option& option) {
  const auto least = static_cast<int64_t>(option.least);
  require(value >= least && value <= kLargestSize, "{} must be from {} to 2^31 - 1, not {}", name,
          least, value);
}

void check(std::string_view name, double value, const Option& option) {
  require(value >= option.least && std::isfinite(value), "{} must be {}a positive number, not {}",
          name, option.least > 0 ? "" : "0 or ", value);
}

void read(const nlohmann::json& json, int64_t& value, const std::string& name) {
  require(json.is_number_integer(), "{} must be a whole number, not {}", name, json.dump());
  // A number above 2^63 would wrap around.
  require(!json.is_number_unsigned() || json.get<uint64_t>() <= INT64_MAX, "{} is too large: {}",
          name, json.dump());
  value = json.get<int64_t>();
}

void read(const nlohmann::json& json, double& value, const std::string& name) {
  require(json.is_number(), "{} must be a number, not {}", name, json.dump());
  value = json.get<double>();
}

void read(const nlohmann::json& json, bool& value, const std::string& name) {
  require(json.is_boolean(), "{} must be true or false, not {}", name, json.dump());
  value = json.get<bool>();
}

void read(const nlohmann::json& json, std::string& value, const std::string& name) {
  require(json.is_string(), "{} must be a string, not {}", name, json.dump());
  value = json.get<std::string>();
}

}  // namespace pararnn::nn
