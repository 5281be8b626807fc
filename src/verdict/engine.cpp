#include <algorithm>

#include "verdict/check_case.hpp"
#include "verdict/sections.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

/// The grid on one device, in float32 and float64 by each plan: the largest deviation of each
/// point, in units of what is permitted.
json check_on(const std::string& device, const CellContract& cell) {
  json grid = json::array();
  int64_t cases = 0, failures = 0;
  double worst = 0;
  for (const double weight_scale : kWeightScales) {
    json row = json::array();
    for (const double gate_bias : kGateBiases) {
      double of_point = 0;
      for (const char* dtype : {"float32", "float64"}) {
        for (const char* plan : {"sequential", "speculative", "newton"}) {
          CheckCase check;
          check.cell = cell.definition.key();
          check.batch = 1;
          check.steps = 300;  // the last chunk is not whole
          check.channels = 8;
          check.weight_scale = weight_scale;
          check.gate_bias = gate_bias;
          check.dtype = dtype;
          check.device = device;
          check.seed = uint64_t(cases++);
          check.options = {.plan = plan, .chunk = 64, .burn_in = 32};
          const CheckReport report = run_check(check);
          failures += !report.passed();
          of_point = std::max(of_point, std::min(report.worst(), 1e300));
        }
      }
      worst = std::max(worst, of_point);
      row.push_back(of_point);
    }
    grid.push_back(row);
  }
  return {{"device", device},
          {"cases", cases},
          {"failures", failures},
          {"worst", worst},
          {"grid", grid}};
}

}  // namespace

json engine_section(const CellContract& cell, const VerdictOptions& options) {
  json devices = json::array();
  for (const std::string& device : options.devices) devices.push_back(check_on(device, cell));
  return {{"weight_scales", kWeightScales}, {"gate_biases", kGateBiases}, {"devices", devices}};
}

}  // namespace pararnn
