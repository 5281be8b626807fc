// The sections that need only the cell's functions: what it is, and how it behaves along a
// sequence.
#include "base/error.hpp"
#include "pararnn/analysis/derivatives.hpp"
#include "pararnn/analysis/forgetting.hpp"
#include "pararnn/analysis/lyapunov.hpp"
#include "pararnn/analysis/newton.hpp"
#include "pararnn/plan.hpp"
#include "verdict/sections.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

/// JSON has no infinity; whoever reads it takes this for one.
double finite(double x) { return std::isfinite(x) ? x : std::copysign(1e300, x); }

json all_finite(const std::vector<double>& values) {
  json result = json::array();
  for (const double x : values) result.push_back(finite(x));
  return result;
}

json describe(const Regime& regime) {
  return {{"weight_scale", regime.weight_scale}, {"gate_bias", regime.gate_bias}};
}

json steps_or_null(int64_t steps) { return steps < 0 ? json(nullptr) : json(steps); }

}  // namespace

json contract_section(const CellContract& cell) {
  json side = json::array();
  for (const int input : cell.roles.side_inputs) side.push_back(cell.inputs[size_t(input)]);
  json result = {{"summary", cell.definition.summary},
                 {"source", cell.definition.origin},
                 {"state", cell.state},
                 {"inputs", cell.inputs},
                 {"params", cell.params},
                 {"side_inputs", side},
                 {"memory_input", nullptr},
                 {"biased_input", cell.inputs[size_t(cell.roles.memory_input)]}};
  if (cell.definition.memory_input >= 0) {
    result["memory_input"] = cell.inputs[size_t(cell.definition.memory_input)];
    result["memory_direction"] = cell.definition.memory_direction;
  }
  return result;
}

json derivatives_section(const CellContract& cell) {
  const DerivativeReport report = check_derivatives(cell.analysis, cell.roles);
  json irregularities = json::array();
  for (const Irregularity& found : report.irregularities) {
    const char* kinds[] = {"kink", "jump", "wrong derivative"};
    irregularities.push_back({{"kind", kinds[int(found.kind)]},
                              {"component", cell.state[size_t(found.component)]},
                              {"argument", cell.argument(found.argument)},
                              {"at", finite(found.at)},
                              {"left", finite(found.left)},
                              {"right", finite(found.right)}});
  }
  json without_effect = json::array();
  for (size_t i = 0; i < report.has_effect.size(); ++i) {
    if (!report.has_effect[i]) without_effect.push_back(cell.argument(int(i)));
  }
  return {{"comparisons", report.comparisons},
          {"points", report.points},
          {"not_finite", report.not_finite},
          {"largest_error", finite(report.largest_error)},
          {"component", cell.state[size_t(report.component)]},
          {"argument", cell.argument(report.argument)},
          {"irregularities", irregularities},
          {"without_effect", without_effect}};
}

json forgetting_section(const CellContract& cell) {
  json regimes = json::array();
  for (const Regime regime : {Regime{0.5, 0}, Regime{1, 0}, Regime{1, 4}, Regime{4, 0}}) {
    const Forgetting found = measure_forgetting(cell.analysis, cell.roles, regime);
    json entry = describe(regime);
    entry["burn_in"] = found.burn_in;
    entry["median"] = all_finite(found.median);
    entry["worst"] = all_finite(found.worst);
    entry["steps_to_thousandth"] = steps_or_null(found.steps_to_thousandth);
    entry["steps_to_millionth"] = steps_or_null(found.steps_to_millionth);
    regimes.push_back(entry);
  }
  return {{"default_burn_in", kDefaultBurnIn}, {"regimes", regimes}};
}

json newton_section(const CellContract& cell) {
  NewtonRequest request;
  json runs = json::array();
  const auto run = [&]<class T>(const Regime& regime, int64_t burn_in, T) {
    json entry = describe(regime);
    entry["arithmetic"] = sizeof(T) == sizeof(double) ? "float64" : "float32";
    entry["burn_in"] = request.burn_in = burn_in;
    for (const int64_t chunk : {1, 4, 16, 64, 256, 1024}) {
      request.chunk = chunk;
      const NewtonCorrections found = measure_newton<T>(cell.analysis, cell.roles, regime, request);
      entry["chunks"].push_back({{"chunk", chunk},
                                 {"boundaries", request.steps / chunk - 1},
                                 {"median", steps_or_null(found.median)},
                                 {"worst", steps_or_null(found.worst)}});
    }
    runs.push_back(entry);
  };
  for (const Regime regime : {kModerate, Regime{1, 4}, Regime{4, 0}}) {
    run(regime, kDefaultBurnIn, 0.0f);
    run(regime, kDefaultBurnIn, 0.0);
    run(regime, 0, 0.0);
  }
  return {{"steps", request.steps},
          {"tolerance", request.tolerance},
          {"most", request.most},
          {"most_in_engine", kMaxNewtonIterations},
          {"runs", runs}};
}

json lyapunov_section(const CellContract& cell) {
  json result = {{"weight_scales", kWeightScales}, {"gate_biases", kGateBiases}};
  for (const double scale : kWeightScales) {
    json mean = json::array(), largest = json::array(), chaotic = json::array();
    json unbounded = json::array();
    for (const double bias : kGateBiases) {
      const LyapunovExponents found = measure_lyapunov(cell.analysis, cell.roles, {scale, bias});
      mean.push_back(finite(found.mean));
      largest.push_back(finite(found.largest));
      chaotic.push_back(found.chaotic);
      unbounded.push_back(found.unbounded);
    }
    result["mean"].push_back(mean);
    result["largest"].push_back(largest);
    result["chaotic"].push_back(chaotic);
    result["unbounded"].push_back(unbounded);
  }
  return result;
}

}  // namespace pararnn
