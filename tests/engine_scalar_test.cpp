// Every scalar type mixes with literals on either side and stays itself; a step that branches on a
// value is refused with the reason.
#include <gtest/gtest.h>

#include <cmath>
#include <concepts>
#include <string>
#include <type_traits>

#include "engine_compiler.hpp"
#include "pararnn/cells.hpp"
#include "pararnn/core/bounded.hpp"
#include "pararnn/core/constant.hpp"
#include "pararnn/cpu/simd.hpp"

namespace pararnn {
namespace {

using FloatBatch = cpu::Batch<float, cpu::kNativeLanes<float>>;
using DoubleBatch = cpu::Batch<double, 2 * cpu::kNativeLanes<double>>;

template <class F>
double value_of(const Number<F>& x) {
  return x.value;
}
template <class A>
double value_of(const Bounded<A>& x) {
  return x.value;
}
[[maybe_unused]] double value_of(Constant x) { return x.value; }
template <class T, int W>
double value_of(const cpu::Batch<T, W>& x) {
  for (int i = 0; i < W; ++i) {
    const int native = cpu::kNativeLanes<T>;
    EXPECT_EQ(x.registers[i / native][i % native], x.registers[0][0]);
  }
  return x.registers[0][0];
}
template <class T, int N>
double value_of(const Dual<T, N>& x) {
  return value_of(x.value);
}

/// The plain number that a scalar type is made of.
template <class T>
struct PlainOf;
template <class F>
struct PlainOf<Number<F>> {
  using type = F;
};
template <class A>
struct PlainOf<Bounded<A>> {
  using type = A;
};
template <class F, int W>
struct PlainOf<cpu::Batch<F, W>> {
  using type = F;
};
template <>
struct PlainOf<Constant> {
  using type = double;
};
template <class T, int N>
struct PlainOf<Dual<T, N>> : PlainOf<T> {};

/// The gated recurrent unit as it stands in textbooks, with literals of all kinds.
struct TextbookGru {
  static constexpr int kState = 1, kInputs = 3, kParams = 3;

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 3>& u, const Vec<T, 3>& w) {
    T z = 1 / (1 + exp(-(u[0] + w[0] * h[0])));
    T r = 0.5f * (tanh(0.5 * (u[1] + w[1] * h[0])) + 1.0);
    T c = tanh(u[2] + w[2] * (r * h[0] * 2 / 2));
    return {(1 - z) * h[0] + z * c};
  }
};

template <class T>
class EngineScalar : public testing::Test {};
using Scalars =
    testing::Types<Number<float>, Number<double>, FloatBatch, DoubleBatch, Bounded<float>,
                   Bounded<double>, Constant, Dual<Number<float>, 2>, Dual<Number<double>, 3>,
                   Dual<FloatBatch, 2>, Dual<Dual<Number<double>, 1>, 2>,
                   Dual<Dual<DoubleBatch, 3>, 1>, Dual<Bounded<float>, 2>>;
TYPED_TEST_SUITE(EngineScalar, Scalars);

/// All functions and operators of two arguments give T again, whatever stands beside a T.
template <class T, class L>
concept MixesWith = requires(T x, L l) {
  { x + l } -> std::same_as<T>;
  { l + x } -> std::same_as<T>;
  { x - l } -> std::same_as<T>;
  { l - x } -> std::same_as<T>;
  { x* l } -> std::same_as<T>;
  { l* x } -> std::same_as<T>;
  { x / l } -> std::same_as<T>;
  { l / x } -> std::same_as<T>;
  { max(x, l) } -> std::same_as<T>;
  { max(l, x) } -> std::same_as<T>;
  { min(x, l) } -> std::same_as<T>;
  { min(l, x) } -> std::same_as<T>;
  { pow(x, l) } -> std::same_as<T>;
  { pow(l, x) } -> std::same_as<T>;
  { select(x < l, x, l) } -> std::same_as<T>;
  { select(l < x, l, x) } -> std::same_as<T>;
  { select(x < l, l, l) } -> std::same_as<T>;
  { x < l } -> std::same_as<Mask<T>>;
  { l < x } -> std::same_as<Mask<T>>;
  { x > l } -> std::same_as<Mask<T>>;
  { l > x } -> std::same_as<Mask<T>>;
  { x <= l } -> std::same_as<Mask<T>>;
  { l <= x } -> std::same_as<Mask<T>>;
  { x >= l } -> std::same_as<Mask<T>>;
  { l >= x } -> std::same_as<Mask<T>>;
  { less(x, l) } -> std::same_as<Mask<T>>;
  { less(l, x) } -> std::same_as<Mask<T>>;
  { x < l&& l < x } -> std::same_as<Mask<T>>;
  { x < l || l < x } -> std::same_as<Mask<T>>;
  { !(x < l) } -> std::same_as<Mask<T>>;
};

/// And those of one, which are also run.
template <class T>
constexpr bool functions_stay() {
  T x(0.5);
  x += 1, x -= 0.5, x *= 2.0f, x /= 2;
  const auto all = [](auto... expressions) {
    return (std::is_same_v<decltype(expressions), T> && ...);
  };
  return all(-x, exp(x), log(x), sqrt(x), sin(x), cos(x), tanh(x), sigmoid(x), log_sigmoid(x),
             softplus(x), erf(x), relu(x), floor(x), abs(x), square(x), min(x, 1), pow(x, 0.5),
             pow(x, -2));
}

TYPED_TEST(EngineScalar, MixesWithLiterals) {
  using T = TypeParam;
  static_assert(MixesWith<T, int>);
  static_assert(MixesWith<T, float>);
  static_assert(MixesWith<T, double>);
  static_assert(MixesWith<T, unsigned>);
  static_assert(MixesWith<T, long>);
  EXPECT_TRUE(functions_stay<T>());
}

TEST(EngineScalars, PatternsMixWithLiterals) {
  static_assert(MixesWith<Pattern, int> && MixesWith<Pattern, float> && MixesWith<Pattern, double>);
  static_assert(functions_stay<Pattern>());
  constexpr Pattern x = Pattern::argument(0), y = Pattern::argument(3);
  static_assert(Pattern(x * 2 + pow(1 - y, 3)).bits == 9u);
  static_assert(select(x < y, y, 0).bits == 8u, "the choice itself has no derivative");
  static_assert(floor(x).bits == 0u);
}

TYPED_TEST(EngineScalar, ComputesWithLiteralsInItsOwnArithmetic) {
  using T = TypeParam;
  using F = typename PlainOf<T>::type;
  const T x(3);
  // A tenth is no float: 0.1 has to become one before it is multiplied.
  const F tenth = F(0.1), product = tenth * F(3), sum = F(0.1) + F(3), quotient = F(1) / F(3);
  if (!std::is_same_v<T, Bounded<float>> && !std::is_same_v<T, Dual<Bounded<float>, 2>>) {
    EXPECT_EQ(value_of(0.1 * x), double(product));
    EXPECT_EQ(value_of(x * 0.1), double(product));
    EXPECT_EQ(value_of(0.1 + x), double(sum));
    EXPECT_EQ(value_of(1 / x), double(quotient));
  }
  EXPECT_EQ(value_of(T(0.1)), double(tenth));
  EXPECT_EQ(value_of(x * 2), 6);
  EXPECT_EQ(value_of(1 - x), -2);
  EXPECT_EQ(value_of(relu(-x)), 0);
  EXPECT_EQ(value_of(max(x, 4)), 4);
  EXPECT_EQ(value_of(floor(x / 2)), 1);
  EXPECT_EQ(value_of(select(x > 2 && x < 4, 1, 0)), 1);
}

TYPED_TEST(EngineScalar, RunsATextbookCell) {
  using T = TypeParam;
  const double h = 0.3, u[3] = {0.5, -0.25, 0.75}, w[3] = {0.5, 1, -1.5};
  const Vec<T, 1> next = next_state<TextbookGru>(Vec<T, 1>{T(h)}, Vec<T, 3>{u[0], u[1], u[2]},
                                                 Vec<T, 3>{w[0], w[1], w[2]});
  const double z = 1 / (1 + std::exp(-(u[0] + w[0] * h)));
  const double r = 1 / (1 + std::exp(-(u[1] + w[1] * h)));
  const double expected = (1 - z) * h + z * std::tanh(u[2] + w[2] * r * h);
  const double unit = std::numeric_limits<typename PlainOf<T>::type>::epsilon();
  EXPECT_NEAR(value_of(next[0]), expected, 8 * unit);
}

TEST(EngineScalars, TheTextbookCellHasTheDerivativesOfTheBuiltInOne) {
  const Vec<double, 1> h = {0.3};
  const Vec<double, 3> u = {0.5, -0.25, 0.75}, w = {0.5, 1, -1.5};
  const auto textbook = differentiate<TextbookGru, 7>(h, u, w);
  const auto built_in = differentiate<Gru, 7>(h, u, w);
  for (int i = 0; i < 7; ++i) {
    EXPECT_NEAR(textbook.jacobian(0, i), built_in.jacobian(0, i), 1e-15);
  }
  EXPECT_EQ(kJacobianPattern<TextbookGru>[0].bits, kJacobianPattern<Gru>[0].bits);
}

TEST(EngineScalars, BoundsOfMasksAreTheirCertainty) {
  using B = Bounded<float>;
  const B low(0, 0.1), high(1, 0.1), near(0.05, 0.1);
  const auto certain = [](const Mask<B>& mask) { return mask.bits.certain; };
  EXPECT_TRUE(certain(low < high && low < 2));
  EXPECT_FALSE(certain(low < near && low < high));
  EXPECT_TRUE(certain(low < near && high < low)) << "false, whatever the first is";
  EXPECT_TRUE(certain(low < near || low < high)) << "true, whatever the first is";
  EXPECT_FALSE(certain(!(low < near)));
  EXPECT_GE(select(low < near, B(1), B(2)).error, 1);
}

TEST(EngineScalars, ConstantsAreWhatTheCLibraryComputes) {
  const auto expect = [](const char* name, auto&& constant, auto&& right, double low, double high) {
    for (int i = 0; i <= 1000; ++i) {
      const double x = low + (high - low) * i / 1000, expected = right(x);
      EXPECT_NEAR(constant(Constant(x)).value, expected, 4e-14 * (1 + std::abs(expected)))
          << name << " of " << x;
    }
  };
#define EXPECT_LIKE_STD(f, low, high) \
  expect(                             \
      #f, [](Constant x) { return f(x); }, [](double x) { return std::f(x); }, low, high)
  EXPECT_LIKE_STD(exp, -40, 40);
  EXPECT_LIKE_STD(log, 1e-3, 1e6);
  EXPECT_LIKE_STD(sqrt, 0, 1e6);
  EXPECT_LIKE_STD(tanh, -30, 30);
  EXPECT_LIKE_STD(sin, -100, 100);
  EXPECT_LIKE_STD(cos, -100, 100);
  EXPECT_LIKE_STD(erf, -7, 7);
  EXPECT_LIKE_STD(floor, -10, 10);
  EXPECT_LIKE_STD(abs, -10, 10);
#undef EXPECT_LIKE_STD
  // No step of it leaves the constants, whatever it meets.
  constexpr Constant zero = 0, most = exp(Constant(1000)), undefined = zero / zero;
  constexpr Constant more = most * most + most, least = -most / zero, tiny = exp(-most) * 1e-300;
  EXPECT_EQ(undefined.value, 0);
  EXPECT_EQ(most.value, 1e100);
  EXPECT_EQ(more.value, 1e100);
  EXPECT_EQ(least.value, -1e100);
  EXPECT_EQ(tiny.value, 0);
  EXPECT_EQ(log(zero).value, -1e100);
}

/// A cell whose step is `body`, and the claim that it is one.
std::string cell_with(const std::string& body) {
  return R"(#include <algorithm>
#include "pararnn/cell.hpp"
using pararnn::Vec;
struct Leaky {
  static constexpr int kState = 1, kInputs = 2, kParams = 1;
  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 1>& w) {
)" + body +
         "\n  }\n};\nstatic_assert(pararnn::Cell<Leaky>);\n";
}

TEST(EngineScalars, AStepWithoutBranchesIsACell) {
  EXPECT_EQ(compiler_says(cell_with("const T z = sigmoid(u[0]);"
                                    "return {(1 - z) * h[0] + z * tanh(u[1] + w[0] * h[0])};")),
            "");
  EXPECT_EQ(compiler_says(cell_with("return {select(h[0] < 0, u[0], u[1]) * w[0]};")), "");
}

TEST(EngineScalars, ABranchOnAValueIsRefusedWithTheReason) {
  for (const char* body : {"if (h[0] < 0) return {u[0]}; return {u[1]};",
                           "if (less(h[0], u[0])) return {u[0]}; return {u[1]};",
                           "return {h[0] < u[0] ? u[0] : u[1]};", "return {std::max(h[0], u[0])};",
                           "T x = u[0]; while (x > 1) x = 0.5 * x; return {x};",
                           "if (h[0]) return {u[0]}; return {u[1]};",
                           "if (h[0] < 0 && u[0] >= 1) return {u[0]}; return {u[1]};"}) {
    const std::string said = compiler_says(cell_with(body));
    EXPECT_NE(said.find("a step may not branch on a value"), said.npos) << body << "\n" << said;
    EXPECT_NE(said.find("select(a < b, x, y)"), said.npos) << body << "\n" << said;
  }
}

}  // namespace
}  // namespace pararnn
