// Verdicts on cells whose behaviour is known, and what text and page make of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "cells/cell_registry.hpp"
#include "pararnn/plan.hpp"
#include "verdict/sections.hpp"
#include "verdict/verdict_page.hpp"
#include "verdict/verdict_text.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

/// The logistic map x ← 4 x (1 − x) at x = h + 0.3: chaos.
struct Logistic {
  static constexpr int kState = 1, kInputs = 1, kParams = 0;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>&, const Vec<T, 0>&) {
    const T x = h[0] + T(0.3);
    return {T(4) * x * (T(1) - x) - T(0.3)};
  }
};

/// A linear recurrence that remembers for thousands of steps.
struct Linear {
  static constexpr int kState = 1, kInputs = 1, kParams = 0;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 0>&) {
    return {T(0.998) * h[0] + T(0.01) * u[0]};
  }
};

/// Forgets at once, but jumps where its input crosses 0.5.
struct Threshold {
  static constexpr int kState = 1, kInputs = 1, kParams = 1;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 1>& w) {
    return {T(0.5) * tanh(w[0] * h[0]) + select(less(u[0], T(0.5)), T(-1), T(1))};
  }
};

/// A cell that the operators do not have. Its names are those of markup, to be escaped.
template <class C>
CellContract unregistered() {
  CellDefinition definition;
  definition.name = "<b>&\"cell\"";
  definition.type = "Missing";
  CellContract cell{definition, {}, {}, {}, {}, make_analysis<C>()};
  for (int i = 0; i < C::kState; ++i) cell.state.push_back("h<" + std::to_string(i) + ">");
  for (int i = 0; i < C::kInputs; ++i) cell.inputs.push_back("u<" + std::to_string(i) + ">");
  for (int i = 0; i < C::kParams; ++i) cell.params.push_back("w<" + std::to_string(i) + ">");
  return cell;
}

template <class C>
const json& verdict_on_unregistered() {
  static const json result = verdict_on(unregistered<C>(), {});
  return result;
}

const json& verdict_on_gru() {
  static const json result = verdict("gru");
  return result;
}

TEST(Verdict, AChaoticCellRunsInSequence) {
  const json& result = verdict_on_unregistered<Logistic>();
  EXPECT_EQ(result["conclusion"]["verdict"], "runs in sequence") << result["conclusion"];
  EXPECT_EQ(result["lyapunov"]["chaotic"][0][0], 1);
  ASSERT_EQ(result["derivatives"]["without_effect"].size(), 1u);
}

TEST(Verdict, ALinearCellWithLongMemoryIsCorrected) {
  const json& conclusion = verdict_on_unregistered<Linear>()["conclusion"];
  EXPECT_EQ(conclusion["verdict"], "parallelises with corrections") << conclusion;
  EXPECT_TRUE(conclusion["warnings"].empty()) << conclusion;
}

TEST(Verdict, AJumpIsWarnedOf) {
  const json& conclusion = verdict_on_unregistered<Threshold>()["conclusion"];
  EXPECT_EQ(conclusion["verdict"], "parallelises well");
  ASSERT_EQ(conclusion["warnings"].size(), 1u) << conclusion;
  const std::string warning = conclusion["warnings"][0];
  EXPECT_NE(warning.find("h<0> jumps"), std::string::npos) << warning;
  EXPECT_NE(warning.find("u<0> crosses 0.5"), std::string::npos) << warning;
}

TEST(Verdict, ASectionThatFailsSaysWhy) {
  const json& result = verdict_on_unregistered<Linear>();
  for (const char* section : {"engine_against_loop", "cost"}) {
    const std::string why = result[section].value("not_available", "");
    EXPECT_NE(why.find("cell"), std::string::npos) << section << ": " << why;
  }
  EXPECT_TRUE(result["kernels"]["gpu"].contains("not_available"));
  EXPECT_FALSE(result["kernels"]["operations"].empty());
}

TEST(Verdict, WithoutItsGroundsThereIsNoConclusion) {
  json result = verdict_on_unregistered<Linear>();
  result["newton"] = {{"not_available", "reasons"}};
  EXPECT_THROW(conclusion_section(result), std::exception);
  result["conclusion"] = {{"not_available", "reasons"}};
  EXPECT_NE(verdict_text(result).find("not available: reasons"), std::string::npos);
  EXPECT_NE(verdict_page(result).find("not available: reasons"), std::string::npos);
}

TEST(Verdict, TheGruParallelisesWell) {
  const json& result = verdict_on_gru();
  EXPECT_EQ(result["conclusion"]["verdict"], "parallelises well") << result["conclusion"];
  EXPECT_TRUE(result["conclusion"]["warnings"].empty()) << result["conclusion"];
  for (const auto& [name, section] : result.items()) {
    EXPECT_FALSE(section.is_object() && section.contains("not_available")) << name << section;
  }
  EXPECT_EQ(result["contract"]["memory_input"], "z");
  EXPECT_EQ(result["engine_against_loop"]["devices"][0]["failures"], 0);
  EXPECT_GT(result["engine_against_loop"]["devices"][0]["cases"], 100);
  EXPECT_EQ(result["kernels"]["operations"]["sigmoid"], 2);
  EXPECT_GT(result["cost"]["devices"][0]["forward"]["of_gru"].get<double>(), 0);
}

TEST(Verdict, TheBehaviourOfEachBuiltInCellSpeaksForIt) {
  for (const CellDefinition& info : built_in_cells()) {
    const CellContract cell = cell_contract(info.name);
    EXPECT_EQ(cell.state.size(), size_t(info.state)) << info.name;
    EXPECT_EQ(cell.inputs.size(), size_t(info.inputs)) << info.name;
    EXPECT_EQ(cell.params.size(), size_t(info.params)) << info.name;
    const json forgetting = forgetting_section(cell);
    for (const json& regime : forgetting["regimes"]) {
      if (regime["weight_scale"] > 1 || regime["gate_bias"] != 0) continue;
      EXPECT_LE(regime["steps_to_millionth"], kDefaultBurnIn) << info.name;
    }
    // A gate bias of 4 makes a gated cell remember longer, whichever its direction.
    if (info.memory_input >= 0) {
      EXPECT_GT(forgetting["regimes"][2]["steps_to_thousandth"],
                2 * forgetting["regimes"][1]["steps_to_thousandth"].get<int>())
          << info.name;
    }
  }
}

TEST(VerdictText, IsShortAndStartsWithTheConclusion) {
  for (const json* result : {&verdict_on_gru(), &verdict_on_unregistered<Threshold>()}) {
    std::istringstream lines(verdict_text(*result));
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      const auto columns = std::ranges::count_if(line, [](char c) { return (c & 0xC0) != 0x80; });
      EXPECT_LE(columns, 100) << line;
      if (count == 0) {
        EXPECT_EQ(line, (*result)["cell"].get<std::string>() + ": parallelises well");
      }
    }
    EXPECT_LE(count, 60);
    EXPECT_GT(count, 30);
  }
}

TEST(VerdictPage, NeedsNothingElseAndEscapesNames) {
  for (const json* result : {&verdict_on_gru(), &verdict_on_unregistered<Logistic>(),
                             &verdict_on_unregistered<Threshold>()}) {
    const std::string page = verdict_page(*result);
    for (const char* outside : {"http", "<script", "src=", "@import", "url(//", "<link"}) {
      EXPECT_EQ(page.find(outside), std::string::npos) << outside;
    }
    for (const char* wrong : {"<b>&\"", "h<0>", "u<0>", "nan", "=\"inf"}) {
      EXPECT_EQ(page.find(wrong), std::string::npos) << wrong;
    }
    const auto count = [&](const std::string& word) {
      size_t found = 0;
      for (size_t at = page.find(word); at != std::string::npos; at = page.find(word, at + 1)) {
        ++found;
      }
      return found;
    };
    EXPECT_GE(count("<svg"), 3u);
    for (const char* tag : {"svg", "figure", "div", "ul", "li", "dl", "dt", "dd", "g", "text"}) {
      const std::string name = tag;
      EXPECT_EQ(count("<" + name + ">") + count("<" + name + " "), count("</" + name + ">")) << tag;
    }
  }
}

}  // namespace
}  // namespace pararnn
