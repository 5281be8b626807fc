// Affine maps: composition is application one after the other, associative, with an identity.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "pararnn/core/affine.hpp"

namespace pararnn {
namespace {

template <int S>
Vec<double, S> random_vector(std::mt19937& generator) {
  std::normal_distribution<double> normal;
  Vec<double, S> v{};
  for (int i = 0; i < S; ++i) v[i] = normal(generator);
  return v;
}

template <int S>
Affine<double, S> random_map(std::mt19937& generator) {
  Affine<double, S> map{{}, random_vector<S>(generator)};
  for (int r = 0; r < S; ++r) {
    const auto row = random_vector<S>(generator);
    for (int c = 0; c < S; ++c) map.matrix(r, c) = row[c];
  }
  return map;
}

template <int S>
void expect_near(const Vec<double, S>& a, const Vec<double, S>& b) {
  for (int i = 0; i < S; ++i) EXPECT_NEAR(a[i], b[i], 1e-11 * (1 + std::abs(b[i])));
}

template <int S>
void expect_near(const Affine<double, S>& a, const Affine<double, S>& b) {
  expect_near(a.offset, b.offset);
  for (int r = 0; r < S; ++r) {
    for (int c = 0; c < S; ++c) {
      EXPECT_NEAR(a.matrix(r, c), b.matrix(r, c), 1e-11 * (1 + std::abs(b.matrix(r, c))));
    }
  }
}

template <class Size>
class EngineAffine : public testing::Test {};
using Sizes = testing::Types<Index<1>, Index<2>, Index<3>, Index<4>>;
TYPED_TEST_SUITE(EngineAffine, Sizes);

TYPED_TEST(EngineAffine, CompositionIsApplicationInTurn) {
  constexpr int S = TypeParam::value;
  std::mt19937 generator(1);
  for (int i = 0; i < 50; ++i) {
    const auto f = random_map<S>(generator), g = random_map<S>(generator);
    const auto x = random_vector<S>(generator);
    expect_near(compose(g, f)(x), g(f(x)));
  }
}

TYPED_TEST(EngineAffine, CompositionIsAssociativeWithAnIdentity) {
  constexpr int S = TypeParam::value;
  std::mt19937 generator(2);
  for (int i = 0; i < 50; ++i) {
    const auto f = random_map<S>(generator), g = random_map<S>(generator);
    const auto h = random_map<S>(generator);
    expect_near(compose(compose(h, g), f), compose(h, compose(g, f)));
    expect_near(compose(f, identity_map<double, S>()), f);
    expect_near(compose(identity_map<double, S>(), f), f);
  }
}

TYPED_TEST(EngineAffine, ARecurrenceIsTheFoldOfItsMaps) {
  constexpr int S = TypeParam::value;
  std::mt19937 generator(3);
  auto x = random_vector<S>(generator);
  const auto start = x;
  auto whole = identity_map<double, S>();
  for (int t = 0; t < 6; ++t) {
    const auto f = random_map<S>(generator);
    x = f(x);
    whole = compose(f, whole);
  }
  expect_near(whole(start), x);
}

}  // namespace
}  // namespace pararnn
