#include "base/error.hpp"
#include "pararnn/analysis/lyapunov.hpp"
#include "pararnn/plan.hpp"
#include "verdict/sections.hpp"
#include "verdict/verdict_words.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

constexpr const char* kWell = "parallelises well";
constexpr const char* kCorrected = "parallelises with corrections";
constexpr const char* kSequence = "runs in sequence";

const json& available(const json& verdict, const char* section) {
  const json& found = verdict.at(section);
  require(!found.contains("not_available"), "the section '{}' is not available: {}", section,
          found.value("not_available", ""));
  return found;
}

bool is_moderate(const json& regime) {
  return regime.at("weight_scale") <= kModerate.weight_scale &&
         regime.at("gate_bias") == kModerate.gate_bias;
}

/// The largest number of a table of the section `lyapunov` at moderate weights.
double largest_of(const json& lyapunov, const char* table) {
  double largest = -1e300;
  for (size_t i = 0; i < lyapunov.at("weight_scales").size(); ++i) {
    for (size_t j = 0; j < lyapunov.at("gate_biases").size(); ++j) {
      const json regime = {{"weight_scale", lyapunov["weight_scales"][i]},
                           {"gate_bias", lyapunov["gate_biases"][j]}};
      if (is_moderate(regime)) {
        largest = std::max(largest, lyapunov.at(table)[i][j].get<double>());
      }
    }
  }
  return largest;
}

/// Steps to forget at moderate weights, in every channel; -1: not within what was tried.
int64_t steps_to_forget(const json& forgetting) {
  int64_t steps = 0;
  for (const json& regime : forgetting.at("regimes")) {
    if (!is_moderate(regime)) continue;
    if (regime.at("steps_to_millionth").is_null()) return -1;
    steps = std::max(steps, regime["steps_to_millionth"].get<int64_t>());
  }
  return steps;
}

const json& newton_run(const json& newton, const Regime& regime) {
  for (const json& run : newton.at("runs")) {
    if (run.at("weight_scale") == regime.weight_scale && run.at("gate_bias") == regime.gate_bias &&
        run.at("arithmetic") == "float32" && run.at("burn_in") == kDefaultBurnIn) {
      return run;
    }
  }
  throw Error("the section 'newton' lacks a regime that the conclusion needs");
}

/// The most corrections, for chunks as long as the planner makes them; -1: more than were tried.
int64_t corrections(const json& run) {
  int64_t most = 0;
  for (const json& chunk : run.at("chunks")) {
    if (chunk.at("chunk") < kShortestChunkOnGpu) continue;
    if (chunk.at("worst").is_null()) return -1;
    most = std::max(most, chunk["worst"].get<int64_t>());
  }
  return most;
}

/// What else a reader should know before relying on the cell.
json warnings_of(const json& verdict) {
  json warnings = json::array();
  const json& derivatives = verdict.at("derivatives");
  for (const json& found : derivatives.value("irregularities", json::array())) {
    const std::string kind = found.at("kind"), component = found.at("component"),
                      argument = found.at("argument");
    const double at = found.at("at"), left = found.at("left"), right = found.at("right");
    if (kind == "jump") {
      warnings.push_back(fmt::format(
          "{} jumps from {:.3g} to {:.3g} where {} crosses {:.3g}: no gradient tells of it",
          component, left, right, argument, at));
    } else if (kind == "wrong derivative") {
      warnings.push_back(fmt::format(
          "the derivative of {} by {} is {:.4g} at {} = {:.3g}, but differences give {:.4g}",
          component, argument, left, argument, at, right));
    }
  }
  if (derivatives.value("not_finite", 0) > 0) {
    warnings.push_back(
        fmt::format("values or derivatives of {} are not finite on trajectories from zero",
                    counted(derivatives.at("not_finite"), "step")));
  }
  for (const json& argument : derivatives.value("without_effect", json::array())) {
    warnings.push_back(
        fmt::format("{} has no effect on the next state", argument.get<std::string>()));
  }
  for (const json& device : verdict.at("engine_against_loop").value("devices", json::array())) {
    if (device.at("failures") > 0) {
      warnings.push_back(
          fmt::format("the engine differs from the plain loop on {} in {} of {}: please report it",
                      device.at("device").get<std::string>(), device.at("failures").get<int64_t>(),
                      counted(device.at("cases"), "case")));
    }
  }
  return warnings;
}

/// How the cell fares once its gate has learned to remember; empty if it has no such gate.
std::string in_long_memory(const json& verdict) {
  const json& forgetting = verdict.at("forgetting");
  if (verdict.at("contract").value("memory_input", json(nullptr)).is_null()) return "";
  for (const json& regime : forgetting.value("regimes", json::array())) {
    if (regime.at("gate_bias") != 4) continue;
    const json& steps = regime.at("steps_to_millionth");
    const std::string remembers =
        steps.is_null()
            ? fmt::format("more than {} steps", regime.at("burn_in").back().get<int64_t>())
            : counted(steps, "step");
    const int64_t most = corrections(newton_run(available(verdict, "newton"), {1, 4}));
    return fmt::format(
        "With its memory gate biased by 4 it remembers {}, and chunks of {} steps or more {}.",
        remembers, kShortestChunkOnGpu,
        most < 0    ? std::string("do not agree within the corrections that were tried")
        : most == 0 ? std::string("need no correction")
                    : "need " + counted(most, "correction"));
  }
  return "";
}

}  // namespace

json conclusion_section(const json& verdict) {
  const json& lyapunov = available(verdict, "lyapunov");
  const double exponent = largest_of(lyapunov, "largest");
  const int64_t forgets = steps_to_forget(available(verdict, "forgetting"));
  const int64_t needed = corrections(newton_run(available(verdict, "newton"), kModerate));
  json result = {{"warnings", warnings_of(verdict)}, {"in_long_memory", in_long_memory(verdict)}};
  if (const double unbounded = largest_of(lyapunov, "unbounded"); unbounded > 0) {
    result["verdict"] = kSequence;
    result["why"] = fmt::format(
        "At weights up to 1 the state of {:.0f} % of its channels grows beyond all bounds, and "
        "nothing can be told ahead of it.",
        100 * unbounded);
  } else if (exponent > kPositiveExponent) {
    result["verdict"] = kSequence;
    result["why"] = fmt::format(
        "At weights up to 1 its largest Lyapunov exponent is {:+.3f} a step: neighbouring "
        "trajectories part, so no method can tell a state far ahead without walking to it.",
        exponent);
  } else if (forgets >= 0 && forgets <= kDefaultBurnIn) {
    result["verdict"] = kWell;
    result["why"] = fmt::format(
        "At weights up to 1 it forgets its start to a millionth within {}, and chunks start {} "
        "steps early.",
        counted(forgets, "step"), kDefaultBurnIn);
  } else if (needed >= 0 && needed <= kMaxNewtonIterations) {
    result["verdict"] = kCorrected;
    result["why"] = fmt::format(
        "At weights up to 1 it remembers its start for {}, longer than the burn-in of {}, but "
        "Newton's method makes the chunks agree with {}.",
        forgets < 0 ? std::string("thousands of steps") : counted(forgets, "step"), kDefaultBurnIn,
        counted(needed, "correction"));
  } else {
    result["verdict"] = kSequence;
    result["why"] = fmt::format(
        "At weights up to 1 it remembers its start for {}, and Newton's method needs {} to make "
        "the chunks agree, where the engine stops at {}.",
        forgets < 0 ? std::string("thousands of steps") : counted(forgets, "step"),
        needed < 0 ? std::string("more corrections than were tried")
                   : counted(needed, "correction"),
        kMaxNewtonIterations);
  }
  return result;
}

}  // namespace pararnn
