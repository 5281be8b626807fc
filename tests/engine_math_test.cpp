// The functions of batches against the long double ones of the C library: the errors that
// cpu/simd.hpp states are kept over the whole range, and the edges are IEEE's.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "pararnn/cpu/simd.hpp"

namespace pararnn::cpu {
namespace {

template <class T>
class EngineMath : public testing::Test {
 public:
  static constexpr int W = 2 * kNativeLanes<T>;
  using B = Batch<T, W>;
  using Limits = std::numeric_limits<T>;

  /// Distance in units in the last place of the right result; infinity for a wrong special value.
  static double ulps(T got, long double exact) {
    const T right = T(exact);
    if (std::isnan(right) || std::isinf(right)) {
      const bool same = std::isnan(right) ? std::isnan(got) : got == right;
      return same ? 0 : INFINITY;
    }
    const T size = std::abs(right);
    // Beyond the largest number lies none: its distance to the one before is the unit there.
    const T above = std::nextafter(size, T(INFINITY));
    const T unit = std::isinf(above) ? size - std::nextafter(size, T(0)) : above - size;
    return double(std::abs((long double)(got)-exact) / (long double)(unit));
  }

  /// f over all of xs, in batches.
  template <class F>
  static std::vector<T> apply(std::vector<T> xs, F&& f) {
    const std::size_t count = xs.size();
    xs.resize((count + W - 1) / W * W);
    for (std::size_t i = 0; i < xs.size(); i += W) f(B::load(&xs[i])).store(&xs[i]);
    xs.resize(count);
    return xs;
  }

  template <class F, class Exact>
  static void expect_within(const char* name, double most, const std::vector<T>& xs, F&& f,
                            Exact&& exact) {
    const std::vector<T> ys = apply(xs, f);
    double worst = 0;
    T at = 0;
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const double error = ulps(ys[i], exact((long double)(xs[i])));
      if (!(error <= worst)) worst = error, at = xs[i];
    }
    EXPECT_LE(worst, most) << name << " at " << at;
    EXPECT_GT(worst, 0.5 * (most > 0)) << name << ": the sample is too easy to tell anything";
  }

  /// Uniform in [low, high], and around zero down to the smallest numbers where that is inside.
  static std::vector<T> sample(double low, double high) {
    std::mt19937_64 generator(1);
    std::uniform_real_distribution<double> uniform(low, high);
    std::uniform_real_distribution<double> exponent(Limits::min_exponent, 0);
    std::vector<T> xs = {T(low), T(high)};
    for (int i = 0; i < 200000; ++i) xs.push_back(T(uniform(generator)));
    for (int i = 0; i < 20000; ++i) {
      const double small = std::exp2(exponent(generator));
      if (high > 1) xs.push_back(T(small));
      if (low < -1) xs.push_back(T(-small));
    }
    return xs;
  }
};

using Arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(EngineMath, Arithmetics);

TYPED_TEST(EngineMath, ErrorsAreWithinTheStatedUnits) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  const double most = std::log(double(Limits::max())), least = std::log(double(Limits::min()));
  this->expect_within(
      "exp", kExpUlp, this->sample(least, most), [](auto x) { return exp(x); },
      [](long double x) { return std::exp(x); });
  this->expect_within(
      "tanh", kTanhUlp, this->sample(-25, 25), [](auto x) { return tanh(x); },
      [](long double x) { return std::tanh(x); });
  this->expect_within(
      "sigmoid", kSigmoidUlp, this->sample(least + 1, most), [](auto x) { return sigmoid(x); },
      [](long double x) { return 1 / (1 + std::exp(-x)); });
  this->expect_within(
      "erf", kErfUlp, this->sample(-7, 7), [](auto x) { return erf(x); },
      [](long double x) { return std::erf(x); });
  // Both sides of the arguments that are reduced by vectors, and far beyond.
  for (const double range : {4.0, 1000.0, 3e6, 1e30}) {
    this->expect_within(
        "sin", kSinUlp, this->sample(-range, range), [](auto x) { return sin(x); },
        [](long double x) { return std::sin(x); });
    this->expect_within(
        "cos", kCosUlp, this->sample(-range, range), [](auto x) { return cos(x); },
        [](long double x) { return std::cos(x); });
  }
  this->expect_within(
      "log1p_unit", kLog1pUlp, this->sample(0, 1), [](auto x) { return log1p_unit(x); },
      [](long double x) { return std::log1p(x); });
  std::vector<T> positive;
  std::mt19937_64 generator(2);
  std::uniform_real_distribution<double> exponent(Limits::min_exponent - Limits::digits + 1,
                                                  Limits::max_exponent);
  for (int i = 0; i < 100000; ++i) {
    positive.push_back(T(std::exp2(std::min(exponent(generator), Limits::max_exponent - 1e-3))));
    positive.push_back(T(std::exp2(exponent(generator) / Limits::max_exponent)));
  }
  std::erase_if(positive, [](T x) { return !(x > 0); });
  this->expect_within(
      "log", kLogUlp, positive, [](auto x) { return log(x); },
      [](long double x) { return std::log(x); });
}

TYPED_TEST(EngineMath, PowersAreWithinTheStatedUnits) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  std::mt19937_64 generator(3);
  std::uniform_real_distribution<double> exponent(-20, 20), power(-10, 10);
  double worst = 0;
  for (int i = 0; i < 20000; ++i) {
    const T x = T(std::exp2(exponent(generator))), y = T(power(generator));
    const long double exact = std::pow((long double)(x), (long double)(y));
    if (exact < Limits::min() || exact > Limits::max()) continue;
    const T got = this->apply({x}, [&](auto b) { return pow(b, y); })[0];
    const double permitted = kPowUlp * (1 + std::abs(y * std::log(double(x))));
    worst = std::max(worst, this->ulps(got, exact) / permitted);
  }
  EXPECT_LE(worst, 1);
  EXPECT_GT(worst, 0.1) << "the bound is too wide to tell anything";
  const std::vector<T> xs = {T(-3), T(-0.5), T(0), T(0.25), T(7)};
  const auto expect_exact = [&](auto&& f, auto&& right) {
    const auto ys = this->apply(xs, f);
    for (std::size_t i = 0; i < xs.size(); ++i) EXPECT_EQ(ys[i], right(xs[i])) << xs[i];
  };
  expect_exact([](auto x) { return pow(x, 0); }, [](T) { return T(1); });
  expect_exact([](auto x) { return pow(x, 1); }, [](T x) { return x; });
  expect_exact([](auto x) { return pow(x, 2); }, [](T x) { return x * x; });
  expect_exact([](auto x) { return pow(x, 3); }, [](T x) { return x * x * x; });
  expect_exact([](auto x) { return pow(x, -2); }, [](T x) { return 1 / (x * x); });
  EXPECT_TRUE(std::isnan(this->apply({T(-2)}, [](auto x) { return pow(x, 0.5); })[0]));
}

TYPED_TEST(EngineMath, FloorsAreExact) {
  std::vector<TypeParam> xs = this->sample(-100, 100);
  for (int e = -3; e < 80; ++e) {
    for (const double x : {1.0, 1.5, 1.75, 0.999999}) {
      xs.push_back(TypeParam(std::ldexp(x, e)));
      xs.push_back(TypeParam(-std::ldexp(x, e)));
    }
  }
  const std::vector<TypeParam> ys = this->apply(xs, [](auto x) { return floor(x); });
  for (std::size_t i = 0; i < xs.size(); ++i) ASSERT_EQ(ys[i], std::floor(xs[i])) << xs[i];
}

TYPED_TEST(EngineMath, MasksCombineAndChoose) {
  using T = TypeParam;
  const std::vector<T> xs = {T(-1), T(0), T(0.5), T(1), T(2), T(NAN)};
  const auto expect = [&](const char* name, auto&& f, auto&& right) {
    const auto ys = this->apply(xs, f);
    for (std::size_t i = 0; i < xs.size(); ++i) {
      EXPECT_EQ(ys[i], T(right(xs[i]))) << name << " of " << xs[i];
    }
  };
  expect(
      "x < 1", [](auto x) { return select(x < 1, 1, 0); }, [](T x) { return x < 1; });
  expect(
      "x > 1", [](auto x) { return select(x > 1, 1, 0); }, [](T x) { return x > 1; });
  expect(
      "x <= 1", [](auto x) { return select(x <= 1, 1, 0); }, [](T x) { return x <= 1; });
  expect(
      "1 <= x", [](auto x) { return select(1 <= x, 1, 0); }, [](T x) { return x >= 1; });
  expect(
      "x >= 1", [](auto x) { return select(x >= 1, 1, 0); }, [](T x) { return x >= 1; });
  expect(
      "0 < x && x < 1", [](auto x) { return select(0 < x && x < 1, 1, 0); },
      [](T x) { return 0 < x && x < 1; });
  expect(
      "x < 0 || x > 1", [](auto x) { return select(x < 0 || x > 1, 1, 0); },
      [](T x) { return x < 0 || x > 1; });
  expect(
      "!(x < 1)", [](auto x) { return select(!(x < 1), 1, 0); }, [](T x) { return !(x < 1); });
}

TYPED_TEST(EngineMath, SquareRootsAreRoundedRight) {
  const std::vector<TypeParam> xs = this->sample(0, 1e6);
  const std::vector<TypeParam> ys = this->apply(xs, [](auto x) { return sqrt(x); });
  for (std::size_t i = 0; i < xs.size(); ++i) ASSERT_EQ(ys[i], std::sqrt(xs[i]));
}

TYPED_TEST(EngineMath, SubnormalExponentialsAreOffByAtMostTwoOfTheSmallestNumbers) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  std::vector<T> xs;
  const double from = std::log(double(Limits::denorm_min())) - 2,
               to = std::log(double(Limits::min()));
  for (int i = 0; i < 20000; ++i) xs.push_back(T(from + (to - from) * i / 20000));
  const std::vector<T> ys = this->apply(xs, [](auto x) { return exp(x); });
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const long double exact = std::exp((long double)(xs[i]));
    ASSERT_LE(std::abs((long double)(ys[i]) - exact), 2 * (long double)(Limits::denorm_min()))
        << xs[i];
  }
}

TYPED_TEST(EngineMath, EdgesAreThoseOfTheScalarFunctions) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  const T inf = Limits::infinity(), nan = Limits::quiet_NaN(), most = Limits::max();
  const std::vector<T> xs = {T(0), -T(0), inf,           -inf,           nan,
                             most, -most, Limits::min(), -Limits::min(), Limits::denorm_min(),
                             T(1), T(-1), T(1000),       T(-1000)};
  const auto expect_like = [&](const char* name, auto&& batch, auto&& scalar) {
    const std::vector<T> ys = this->apply(xs, batch);
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const T right = scalar(xs[i]);
      if (std::isnan(right)) {
        EXPECT_TRUE(std::isnan(ys[i])) << name << " of " << xs[i] << " is " << ys[i];
      } else if (std::isinf(right) || right == 0) {
        EXPECT_EQ(ys[i], right) << name << " of " << xs[i];
        if (name == std::string("floor")) {
          EXPECT_EQ(std::signbit(ys[i]), std::signbit(right)) << xs[i];
        }
      } else {
        EXPECT_NEAR(ys[i], right, 8 * Limits::epsilon() * std::abs(right))
            << name << " of " << xs[i];
      }
    }
  };
  expect_like(
      "exp", [](auto x) { return exp(x); }, [](T x) { return std::exp(x); });
  expect_like(
      "log", [](auto x) { return log(x); }, [](T x) { return std::log(x); });
  expect_like(
      "tanh", [](auto x) { return tanh(x); }, [](T x) { return std::tanh(x); });
  expect_like(
      "sqrt", [](auto x) { return sqrt(x); }, [](T x) { return std::sqrt(x); });
  expect_like(
      "sin", [](auto x) { return sin(x); }, [](T x) { return std::sin(x); });
  expect_like(
      "cos", [](auto x) { return cos(x); }, [](T x) { return std::cos(x); });
  expect_like(
      "erf", [](auto x) { return erf(x); }, [](T x) { return std::erf(x); });
  expect_like(
      "floor", [](auto x) { return floor(x); }, [](T x) { return std::floor(x); });
  expect_like(
      "relu", [](auto x) { return relu(x); }, [](T x) { return x < 0 ? T(0) : x; });
  expect_like(
      "abs", [](auto x) { return abs(x); }, [](T x) { return std::abs(x); });
  expect_like(
      "sigmoid", [](auto x) { return sigmoid(x); }, [](T x) { return 1 / (1 + std::exp(-x)); });
  expect_like(
      "softplus", [](auto x) { return softplus(x); },
      [](T x) {
        return std::max(x, T(0)) + std::log1p(std::exp(-std::abs(x))) + (std::isnan(x) ? x : T(0));
      });
}

TYPED_TEST(EngineMath, MaximumAndMinimumKeepNotANumber) {
  using T = TypeParam;
  using B = typename EngineMath<T>::B;
  const T nan = NAN;
  T out[B::kLanes];
  const auto first = [&](const B& b) {
    b.store(out);
    return out[0];
  };
  EXPECT_EQ(first(max(B(T(2)), B(T(3)))), T(3));
  EXPECT_EQ(first(min(B(T(2)), B(T(3)))), T(2));
  EXPECT_TRUE(std::isnan(first(max(B(nan), B(T(3))))));
  EXPECT_TRUE(std::isnan(first(max(B(T(3)), B(nan)))));
  EXPECT_TRUE(std::isnan(first(min(B(nan), B(T(3))))));
  EXPECT_TRUE(std::isnan(first(min(B(T(3)), B(nan)))));
}

TYPED_TEST(EngineMath, EveryLaneIsComputedByItself) {
  using T = TypeParam;
  using B = typename EngineMath<T>::B;
  std::vector<T> xs(B::kLanes);
  for (int i = 0; i < B::kLanes; ++i) xs[i] = T(0.25) * T(i) - 3;
  const auto together = this->apply(xs, [](auto x) { return tanh(x) * exp(x); });
  for (int i = 0; i < B::kLanes; ++i) {
    const auto alone =
        this->apply(std::vector<T>(B::kLanes, xs[i]), [](auto x) { return tanh(x) * exp(x); });
    EXPECT_EQ(together[i], alone[0]);
  }
}

}  // namespace
}  // namespace pararnn::cpu
