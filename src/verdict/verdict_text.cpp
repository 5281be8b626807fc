#include "verdict/verdict_text.hpp"

#include <fmt/format.h>

#include "base/text_width.hpp"
#include "verdict/verdict_words.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

constexpr size_t kLineWidth = 100;

/// Breaks a paragraph between words; the lines after the first are indented.
std::string wrapped(const std::string& text, size_t indent, size_t already = 0) {
  std::string result;
  size_t at = already;
  for (size_t from = 0; from < text.size();) {
    const size_t to = std::min(text.find(' ', from), text.size());
    const std::string_view word = std::string_view(text).substr(from, to - from);
    if (at > indent && at + 1 + columns_of(word) > kLineWidth) {
      result += '\n';
      result.append(indent, ' ');
      at = indent;
    } else if (from > 0) {
      result += " ";
      ++at;
    }
    result += word;
    at += columns_of(word);
    from = to + 1;
  }
  return result + "\n";
}

std::string facts_text(const json& verdict) {
  constexpr size_t kIndent = 13;
  std::string result;
  for (const VerdictFact& fact : verdict_facts(verdict)) {
    std::string label = fact.label;
    for (const std::string& line : fact.lines) {
      result += fmt::format("{:<{}}", label, kIndent) + wrapped(line, kIndent, kIndent);
      label.clear();
    }
  }
  return result;
}

std::string steps_text(const json& steps) {
  return steps.is_null() ? "more" : std::to_string(steps.get<int64_t>());
}

std::string table_title(const char* title, const json& section) {
  const std::string why = why_not_available(section);
  return fmt::format("\n{}\n{}", title, why.empty() ? "" : "  " + wrapped(why, 2, 2));
}

std::string forgetting_text(const json& section) {
  std::string result =
      table_title("Mismatch after a burn-in of so many steps: largest over the channels", section);
  if (!why_not_available(section).empty()) return result;
  bool first = true;
  for (const json& regime : section.at("regimes")) {
    std::string head = fmt::format("  {:<25}", ""), row = fmt::format("  {:<25}", "");
    const std::string words = regime_words(regime);
    row = "  " + words + std::string(25 - std::min<size_t>(25, columns_of(words)), ' ');
    for (size_t i = 0; i < regime.at("burn_in").size(); i += 2) {
      head += fmt::format("{:>8}", regime["burn_in"][i].get<int64_t>());
      const double mismatch = regime.at("worst")[i];
      row += fmt::format("{:>8}", mismatch == 0       ? "0"
                                  : mismatch >= 1e300 ? "inf"
                                                      : fmt::format("{:.0e}", mismatch));
    }
    if (first) result += head + "  1e-6 at\n";
    result += fmt::format("{}{:>9}\n", row, steps_text(regime.at("steps_to_millionth")));
    first = false;
  }
  return result;
}

std::string newton_text(const json& section) {
  std::string result = table_title(
      "Newton corrections until all boundaries agree, by chunk length: most of the channels",
      section);
  if (!why_not_available(section).empty()) return result;
  bool first = true;
  for (const json& run : section.at("runs")) {
    const std::string words =
        fmt::format("{}, burn-in {}, {}", regime_words(run), run.at("burn_in").get<int64_t>(),
                    run.at("arithmetic").get<std::string>());
    std::string head = fmt::format("  {:<45}", "");
    std::string row = "  " + words + std::string(45 - std::min<size_t>(45, columns_of(words)), ' ');
    for (const json& chunk : run.at("chunks")) {
      head += fmt::format("{:>7}", chunk.at("chunk").get<int64_t>());
      row += fmt::format("{:>7}", steps_text(chunk.at("worst")));
    }
    if (first) result += head + "\n";
    result += row + "\n";
    first = false;
  }
  return result;
}

std::string lyapunov_text(const json& section) {
  std::string result = table_title(
      "Lyapunov exponent a step, largest over the channels: above 0 nothing parallelises", section);
  if (!why_not_available(section).empty()) return result;
  result += fmt::format("  {:<14}", "gate bias");
  for (const json& bias : section.at("gate_biases")) {
    result += fmt::format("{:>9}", fmt::format("{:g}", bias.get<double>()));
  }
  result += "\n";
  for (size_t i = 0; i < section.at("weight_scales").size(); ++i) {
    result += "  " + fmt::format("{:<14}", fmt::format("weights ±{:g}",
                                                       section["weight_scales"][i].get<double>()));
    for (const json& exponent : section.at("largest")[i]) {
      result += fmt::format("{:>9.3f}", exponent.get<double>());
    }
    result += "\n";
  }
  return result;
}

}  // namespace

std::string verdict_text(const json& verdict) {
  const json& conclusion = verdict.at("conclusion");
  const std::string cell = verdict.at("cell");
  std::string result;
  if (const std::string why = why_not_available(conclusion); !why.empty()) {
    result = fmt::format("{}: the conclusion is ", cell) + wrapped(why, 0, 0);
  } else {
    result = fmt::format("{}: {}\n", cell, conclusion.at("verdict").get<std::string>());
    result += wrapped(conclusion.at("why"), 0);
    const std::string in_long_memory = conclusion.at("in_long_memory");
    if (!in_long_memory.empty()) result += wrapped(in_long_memory, 0);
    for (const json& warning : conclusion.at("warnings")) {
      result += "warning: " + wrapped(warning, 9, 9);
    }
  }
  return result + "\n" + facts_text(verdict) + forgetting_text(verdict.at("forgetting")) +
         newton_text(verdict.at("newton")) + lyapunov_text(verdict.at("lyapunov"));
}

}  // namespace pararnn
