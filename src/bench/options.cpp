#include "bench/options.hpp"

#include "base/error.hpp"

namespace pararnn::bench {

CheckCase case_of(const std::string& cell, const BenchShape& shape, const std::string& regime,
                  const std::string& dtype, const std::string& device, const ScanOptions& scan) {
  for (const Regime& known : kRegimes) {
    if (known.name != regime) continue;
    CheckCase result;
    result.cell = cell;
    result.batch = shape.batch;
    result.steps = shape.steps;
    result.channels = shape.channels;
    result.weight_scale = known.weight_scale;
    result.gate_bias = known.gate_bias;
    result.dtype = dtype;
    result.device = device;
    result.options = scan;
    return result;
  }
  throw Error(
      fmt::format("there is no regime '{}'; the regimes are forgetting, memory and hard", regime));
}

nlohmann::json describe_case(const CheckCase& c, const std::string& regime) {
  return {{"cell", c.cell},
          {"dtype", c.dtype},
          {"batch", c.batch},
          {"steps", c.steps},
          {"channels", c.channels},
          {"regime", regime},
          {"weights", c.weight_scale},
          {"gate_bias", c.gate_bias}};
}

}  // namespace pararnn::bench
