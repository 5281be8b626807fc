// What a boundary's mismatch is, and that what decides is what is reported.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "pararnn/mismatch.hpp"

namespace pararnn {
namespace {

constexpr double kTolerance = 1e-6;

template <class T>
class EngineMismatch : public testing::Test {};
using Arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(EngineMismatch, Arithmetics);

TYPED_TEST(EngineMismatch, IsRelativeToTheSmallerStateAndOne) {
  using T = TypeParam;
  EXPECT_EQ(state_mismatch(T(3), T(4)).value(), T(0.25));
  EXPECT_EQ(state_mismatch(T(-4), T(3)).value(), T(1.75));
  EXPECT_EQ(state_mismatch(T(0.5), T(0)).value(), T(0.5));
  EXPECT_EQ(state_mismatch(T(1e30), T(1e30)).value(), T(0));
}

TYPED_TEST(EngineMismatch, IsRelativeToTheLargestAdjoint) {
  using T = TypeParam;
  EXPECT_EQ(adjoint_mismatch(T(3), T(4), T(8)).value(), T(0.125));
  EXPECT_EQ(adjoint_mismatch(T(4), T(8), T(1)).value(), T(1));
  EXPECT_EQ(adjoint_mismatch(T(0), T(0), T(0)).value(), T(0));
  EXPECT_TRUE(adjoint_mismatch(T(0), T(0), T(0)).passes(kTolerance));
  EXPECT_FALSE(adjoint_mismatch(T(1e-30), T(0), T(0)).passes(kTolerance));
}

TYPED_TEST(EngineMismatch, WhatIsNotFinitePassesAgainstItselfAlone) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity(), nan = NAN;
  const T values[] = {infinity, -infinity, nan, T(0), T(1), T(-1e30)};
  for (const T a : values) {
    for (const T b : values) {
      const bool same = a == b || (std::isnan(a) && std::isnan(b));
      for (const auto& mismatch : {state_mismatch(a, b), adjoint_mismatch(a, b, T(2))}) {
        EXPECT_EQ(mismatch.passes(kTolerance), same) << a << " against " << b;
        EXPECT_EQ(mismatch.value() == T(0), same) << a << " against " << b;
      }
    }
  }
}

TYPED_TEST(EngineMismatch, PassesWhereTheReportIsBelowTheTolerance) {
  using T = TypeParam;
  std::mt19937 generator(1);
  std::uniform_real_distribution<double> exponent(-9, 3), apart(-2, 2);
  for (int i = 0; i < 1000; ++i) {
    const T a = T(std::pow(10, exponent(generator)));
    const T b = a + T(kTolerance * std::pow(10, apart(generator))) * (1 + a);
    const T peak = T(std::pow(10, exponent(generator)));
    for (const auto& mismatch : {state_mismatch(a, b), adjoint_mismatch(a, b, peak)}) {
      const T value = mismatch.value();
      // A product and a quotient round differently.
      if (std::abs(value / T(kTolerance) - 1) < 1e-6) continue;
      EXPECT_EQ(mismatch.passes(kTolerance), value < T(kTolerance)) << a << " " << b;
    }
  }
}

}  // namespace
}  // namespace pararnn
