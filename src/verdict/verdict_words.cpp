#include "verdict/verdict_words.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <sstream>

#include "pararnn/analysis/trace.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;
using Lines = std::vector<std::string>;

std::string joined(const json& names) {
  return fmt::format("{}", fmt::join(names.get<Lines>(), ", "));
}

Lines cell_lines(const json& section) {
  Lines lines;
  if (section.at("summary") != "") lines.push_back(section["summary"]);
  lines.push_back(fmt::format("state {}; inputs {}; weights {}", joined(section.at("state")),
                              joined(section.at("inputs")),
                              section.at("params").empty() ? "none" : joined(section["params"])));
  const std::string biased = section.at("biased_input");
  if (section.at("memory_input").is_null()) {
    lines.push_back(fmt::format(
        "no input is said to drive its memory; below, the gate bias is added to {}", biased));
  } else {
    lines.push_back(
        fmt::format("{} drives its memory: the {} it is, the longer the cell remembers, and the "
                    "gate bias below "
                    "is {} it",
                    biased, section.at("memory_direction") < 0 ? "smaller" : "larger",
                    section["memory_direction"] < 0 ? "taken from" : "added to"));
  }
  if (!section.at("side_inputs").empty()) {
    lines.push_back(fmt::format("side inputs, which no projection makes, are 1 below: {}",
                                joined(section["side_inputs"])));
  }
  return lines;
}

Lines derivative_lines(const json& section) {
  Lines lines = {fmt::format(
      "{} comparisons with differences: off by {:.1e} at most, relative to 1 "
      "+ |derivative| ({} by {})",
      section.at("comparisons").get<int64_t>(), section.at("largest_error").get<double>(),
      section.at("component").get<std::string>(), section.at("argument").get<std::string>())};
  // Which arguments each component has kinks in.
  std::map<std::string, Lines> kinks;
  int others = 0;
  for (const json& found : section.at("irregularities")) {
    if (found.at("kind") == "kink") {
      kinks[found.at("component")].push_back(found.at("argument"));
    } else {
      ++others;
    }
  }
  // Components with the same kinks are named together.
  std::map<std::string, Lines> components;
  for (const auto& [component, arguments] : kinks) {
    components[fmt::format("{}", fmt::join(arguments, ", "))].push_back(component);
  }
  Lines named;
  for (const auto& [arguments, names] : components) {
    named.push_back(fmt::format("{} in {}", fmt::join(names, ", "), arguments));
  }
  if (!named.empty()) {
    lines.push_back(fmt::format("kinks, which Newton's method takes: {}", fmt::join(named, "; ")));
  }
  if (named.empty() && others == 0) lines.push_back("no kinks, no jumps");
  return lines;
}

Lines engine_lines(const json& section) {
  Lines lines;
  for (const json& device : section.at("devices")) {
    const int64_t cases = device.at("cases"), failures = device.at("failures");
    lines.push_back(fmt::format(
        "{}: {} of {} equal the plain loop; the largest deviation is {:.2f} of the permitted",
        device.at("device").get<std::string>(), cases - failures, counted(cases, "case"),
        device.at("worst").get<double>()));
  }
  return lines;
}

/// The dear operations first.
Lines step_lines(const json& section) {
  Lines words;
  std::string last;  // several operations may have one name
  for (int i = kOperations - 1; i >= 0; --i) {
    const auto operation = static_cast<Operation>(i);
    const char* name = counted_name(operation);
    if (!name || name == last) continue;
    last = name;
    const int count = section.at("operations").value(name, 0);
    if (count == 0) continue;
    words.push_back(is_special_function(operation) ? fmt::format("{} {}", count, name)
                                                   : counted(count, name));
  }
  return {words.empty() ? "no operations" : fmt::format("{}", fmt::join(words, ", "))};
}

Lines kernel_lines(const json& gpu) {
  if (const std::string why = why_not_available(gpu); !why.empty()) return {why};
  Lines words;
  bool spills = false;
  for (const json& kernel : gpu.at("kernels")) {
    const int bytes = kernel.at("spilled_bytes");
    spills = spills || bytes > 0;
    words.push_back(fmt::format("{} {}{}", kernel.at("purpose").get<std::string>(),
                                kernel.at("registers").get<int>(),
                                bytes > 0 ? fmt::format(" ({} bytes spilled)", bytes) : ""));
  }
  return {fmt::format("registers a thread on {} in {}: {}{}",
                      gpu.at("architecture").get<std::string>(),
                      gpu.at("storage").get<std::string>(), fmt::join(words, ", "),
                      spills ? "" : "; nothing spills")};
}

Lines cost_lines(const json& section) {
  Lines lines;
  for (const json& device : section.at("devices")) {
    const auto pass = [&](const char* name) {
      const json& times = device.at(name);
      return fmt::format("{} {:.3g} ns a step and channel ({:.2f} × gru)", name,
                         times.at("nanoseconds_a_step_and_channel").get<double>(),
                         times.at("of_gru").get<double>());
    };
    lines.push_back(
        fmt::format("{}, {}, B{} T{} D{}, in sequence: {}, {}",
                    device.at("device").get<std::string>(), device.at("dtype").get<std::string>(),
                    device.at("batch").get<int64_t>(), device.at("steps").get<int64_t>(),
                    device.at("channels").get<int64_t>(), pass("forward"), pass("backward")));
  }
  return lines;
}

}  // namespace

std::string counted(int64_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::string why_not_available(const json& section) {
  if (!section.contains("not_available")) return "";
  constexpr size_t kMost = 400;  // a compiler may have said more
  std::string result = "not available:";
  std::istringstream words(section["not_available"].get<std::string>());
  for (std::string word; words >> word;) {
    if (result.size() + word.size() > kMost) return result + " …";
    result += " " + word;
  }
  return result;
}

std::string regime_words(const json& regime) {
  const double bias = regime.at("gate_bias");
  return fmt::format("weights ±{:g}{}", regime.at("weight_scale").get<double>(),
                     bias == 0 ? "" : fmt::format(", gate bias {:g}", bias));
}

std::vector<VerdictFact> verdict_facts(const json& verdict) {
  std::vector<VerdictFact> facts;
  const auto add = [&](const char* label, const json& section, const auto& words) {
    const std::string why = why_not_available(section);
    facts.push_back({label, why.empty() ? words(section) : Lines{why}});
  };
  add("cell", verdict.at("contract"), cell_lines);
  add("derivatives", verdict.at("derivatives"), derivative_lines);
  add("engine", verdict.at("engine_against_loop"), engine_lines);
  add("a step", verdict.at("kernels"), step_lines);
  if (verdict["kernels"].contains("gpu")) add("kernels", verdict["kernels"]["gpu"], kernel_lines);
  add("cost", verdict.at("cost"), cost_lines);
  return facts;
}

}  // namespace pararnn
