// What cells say of themselves: the text has its format, names are as many as numbers, and the
// input that drives the memory is the one that a numerical derivation finds.
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <map>
#include <sstream>

#include "catalogue.hpp"
#include "engine_compiler.hpp"
#include "pararnn/core/description.hpp"

namespace pararnn {
namespace {

/// The lines of a description by their keys.
std::map<std::string, std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::map<std::string, std::string> lines;
  for (std::string line; std::getline(in, line);) {
    const std::size_t space = line.find(' ');
    const bool bare = space == line.npos;
    EXPECT_TRUE(lines.emplace(line.substr(0, space), bare ? "" : line.substr(space + 1)).second);
    EXPECT_FALSE(line.ends_with(' ')) << line;
  }
  return lines;
}

std::size_t words_in(const std::string& text) {
  std::istringstream in(text);
  std::size_t count = 0;
  for (std::string word; in >> word;) ++count;
  return count;
}

TEST(EngineDescription, OfAGatedRecurrentUnit) {
  EXPECT_STREQ(kDescription<Gru>.data,
               "state 1\n"
               "inputs 3\n"
               "params 3\n"
               "memory_input 0\n"
               "memory_direction -1\n"
               "side_inputs\n"
               "state_names h\n"
               "input_names z r c\n"
               "param_names w_z w_r w_c\n"
               "summary gated recurrent unit\n");
}

/// Says nothing of itself, and is not defined at rest.
struct Silent {
  static constexpr int kState = 11, kInputs = 1, kParams = 0;

  template <class T>
  PARARNN_FN static Vec<T, 11> step(const Vec<T, 11>& h, const Vec<T, 1>& u, const Vec<T, 0>&) {
    Vec<T, 11> next = h;
    next[0] = u[0] / h[1] + log(h[2]) - h[0] / h[0] * exp(1e9 - u[0]);
    return next;
  }
};

/// Says all that can be said, and better than could be derived.
struct Talkative : Gru {
  static constexpr const char* kSummary = "";
  static constexpr int kSideInputs[] = {1, 2};
  static constexpr int kMemory[] = {1, 1};
};

TEST(EngineDescription, SaysWhatTheCellSays) {
  EXPECT_STREQ(kDescription<Silent>.data,
               "state 11\ninputs 1\nparams 0\nmemory_input -1\nmemory_direction 0\nside_inputs\n"
               "state_names\ninput_names\nparam_names\nsummary\n");
  auto lines = lines_of(kDescription<Talkative>.data);
  EXPECT_EQ(lines["side_inputs"], "1 2");
  EXPECT_EQ(lines["memory_input"], "1");
  EXPECT_EQ(lines["memory_direction"], "1");
  EXPECT_EQ(lines["summary"], "");
}

TEST(EngineDescription, OfEveryCellIsWhole) {
  const auto check = [](const std::string& name, const auto& text, int state, int inputs,
                        int params) {
    SCOPED_TRACE(name);
    EXPECT_EQ(sizeof text, std::string(text.data).size() + 1) << "the text ends where it should";
    auto lines = lines_of(text.data);
    EXPECT_EQ(lines.size(), 10u);
    EXPECT_EQ(lines["state"], std::to_string(state));
    EXPECT_EQ(lines["inputs"], std::to_string(inputs));
    EXPECT_EQ(lines["params"], std::to_string(params));
    EXPECT_EQ(words_in(lines["state_names"]), std::size_t(state));
    EXPECT_EQ(words_in(lines["input_names"]), std::size_t(inputs));
    EXPECT_EQ(words_in(lines["param_names"]), std::size_t(params));
    EXPECT_FALSE(lines["summary"].empty());
  };
#define PARARNN_CHECK(name, Type) \
  check(#name, kDescription<Type>, Type::kState, Type::kInputs, Type::kParams);
  PARARNN_ALL_CELLS(PARARNN_CHECK)
#undef PARARNN_CHECK
}

TEST(EngineDescription, WhatDoesNotFitIsRefusedWithTheReason) {
  const auto says_of = [](const std::string& constant) {
    return compiler_says(R"(#include "pararnn/cells.hpp"
#include "pararnn/core/description.hpp"
struct Own : pararnn::Elman { )" +
                         constant + R"( };
static_assert(pararnn::kDescription<Own>[0] == 's');)");
  };
  const auto expect = [&](const std::string& constant, const std::string& reason) {
    const std::string said = says_of(constant);
    EXPECT_NE(said.find(reason), said.npos) << constant << "\n" << said;
  };
  EXPECT_EQ(says_of("static constexpr const char* kInputNames[] = {\"x\"};"), "");
  expect("static constexpr const char* kInputNames[] = {\"x\", \"y\"};",
         "as many names in kInputNames as kInputs");
  expect("static constexpr const char* kStateNames[] = {\"the state\"};",
         "letters, digits and underscores");
  expect("static constexpr const char* kSummary = \"two\\nlines\";", "kSummary is one line");
  expect("static constexpr int kSideInputs[] = {1};", "kSideInputs are numbers of inputs");
  expect("static constexpr int kMemory[] = {0, 2};", "kMemory is {input, 1}");
}

/// The largest modulus among the roots of the characteristic polynomial, which Faddeev and
/// LeVerrier give and Durand and Kerner solve.
template <int S>
double largest_eigenvalue(const Mat<double, S, S>& m) {
  double coefficients[S + 1] = {1};
  Mat<double, S, S> power = identity<double, S>();
  for (int k = 1; k <= S; ++k) {
    const Mat<double, S, S> product = m * power;
    double trace = 0;
    for (int i = 0; i < S; ++i) trace += product(i, i);
    coefficients[k] = -trace / k;
    power = product;
    for (int i = 0; i < S; ++i) power(i, i) += coefficients[k];
  }
  std::complex<double> roots[S];
  for (int i = 0; i < S; ++i) roots[i] = std::pow(std::complex<double>(0.4, 0.9), i);
  for (int sweep = 0; sweep < 500; ++sweep) {
    for (int i = 0; i < S; ++i) {
      std::complex<double> value = 0, others = 1;
      for (const double c : coefficients) value = value * roots[i] + c;
      for (int j = 0; j < S; ++j) others *= j == i ? 1 : roots[i] - roots[j] + 1e-300;
      roots[i] -= value / others;
    }
  }
  double largest = 0;
  for (const auto& root : roots) largest = std::max(largest, std::abs(root));
  return largest;
}

template <class C>
double memory_by_differences(int input, double value) {
  constexpr int S = C::kState;
  Vec<double, C::kInputs> u{};
  for (int i = 0; i < C::kInputs; ++i) u[i] = is_side_input<C>(i);
  u[input] = value;
  Mat<double, S, S> jacobian{};
  const double size = 1e-6;
  for (int c = 0; c < S; ++c) {
    Vec<double, S> plus{}, minus{};
    plus[c] = size, minus[c] = -size;
    const auto right = next_state<C>(plus, u, Vec<double, C::kParams>{});
    const auto left = next_state<C>(minus, u, Vec<double, C::kParams>{});
    for (int r = 0; r < S; ++r) jacobian(r, c) = (right[r] - left[r]) / (2 * size);
  }
  return largest_eigenvalue(jacobian);
}

template <class C>
void expect_the_memory_of_differences(const std::string& name) {
  SCOPED_TRACE(name);
  double most = 0;
  for (int i = 0; i < C::kInputs; ++i) {
    for (const double value : {-8.0, 8.0}) {
      EXPECT_NEAR(memory_at_rest<C>(i, value), memory_by_differences<C>(i, value), 0.01)
          << "input " << i << " at " << value;
    }
    if (is_side_input<C>(i)) continue;
    most =
        std::max(most, std::abs(memory_by_differences<C>(i, 8) - memory_by_differences<C>(i, -8)));
  }
  if (most < 0.5) {
    EXPECT_EQ(kMemoryOf<C>.input, -1);
    EXPECT_EQ(kMemoryOf<C>.direction, 0);
    return;
  }
  const auto [input, direction] = kMemoryOf<C>;
  ASSERT_GE(input, 0);
  const double kept = memory_by_differences<C>(input, 8 * direction);
  const double lost = memory_by_differences<C>(input, -8 * direction);
  EXPECT_GE(std::abs(kept - lost), most - 0.05);
  EXPECT_LT(std::abs(kept - 1), std::abs(lost - 1));
}

TEST(EngineDescription, TheMemoryIsThatOfDifferenceQuotients) {
#define PARARNN_CHECK(name, Type) expect_the_memory_of_differences<Type>(#name);
  PARARNN_ALL_CELLS(PARARNN_CHECK)
#undef PARARNN_CHECK
}

TEST(EngineDescription, TheMemoryIsDrivenByTheGateThatKeeps) {
  const auto expect = [](const Memory& memory, int input, int direction) {
    EXPECT_EQ(memory.input, input);
    EXPECT_EQ(memory.direction, direction);
  };
  expect(kMemoryOf<Gru>, 0, -1);
  expect(kMemoryOf<Lstm>, 0, 1);
  expect(kMemoryOf<LstmCifg>, 0, 1);
  expect(kMemoryOf<Slstm>, 0, 1);
  expect(kMemoryOf<Elman>, -1, 0);
  expect(kMemoryOf<MinGru>, 0, -1);
  expect(kMemoryOf<Ugrnn>, 0, 1);
}

}  // namespace
}  // namespace pararnn
