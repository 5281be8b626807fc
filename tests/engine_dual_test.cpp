// Dual numbers against identities of calculus and against finite differences.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "pararnn/core/cell.hpp"
#include "pararnn/core/dual.hpp"

namespace pararnn {
namespace {

using D = Dual<Number<double>, 3>;

/// A random dual in all three directions.
D random_dual(std::mt19937& generator, double low, double high) {
  std::uniform_real_distribution<double> value(low, high);
  std::normal_distribution<double> tangent;
  D x(value(generator));
  x.support = 7;
  for (auto& t : x.tangent) t = tangent(generator);
  return x;
}

void expect_near(const D& a, const D& b, double tolerance = 1e-12) {
  const auto near = [&](const Number<double>& x, const Number<double>& y) {
    EXPECT_NEAR(x.value, y.value, tolerance * (1 + std::abs(y.value)));
  };
  near(a.value, b.value);
  for (int i = 0; i < 3; ++i) near(a.tangent[i], b.tangent[i]);
}

TEST(EngineDual, AlgebraHolds) {
  std::mt19937 generator(1);
  for (int i = 0; i < 200; ++i) {
    const D x = random_dual(generator, -3, 3), y = random_dual(generator, -3, 3);
    const D z = random_dual(generator, 0.5, 3);
    expect_near(x * (y + z), x * y + x * z);
    expect_near(x - y, -(y - x));
    expect_near(x / z * z, x);
    expect_near(x * y, y * x);
    expect_near(square(x + y), x * x + 2 * x * y + y * y);
    expect_near(x + 0, x);
    expect_near(1 - x, -(x - 1));
    expect_near(1 / z, square(z) / (z * z * z));
    expect_near(1.0 * x, x);
  }
}

TEST(EngineDual, FunctionIdentitiesHold) {
  std::mt19937 generator(2);
  for (int i = 0; i < 200; ++i) {
    const D x = random_dual(generator, -3, 3), y = random_dual(generator, -3, 3);
    const D p = random_dual(generator, 0.5, 3);
    expect_near(exp(x + y), exp(x) * exp(y));
    expect_near(log(exp(x)), x);
    expect_near(exp(log(p)), p);
    expect_near(sqrt(p) * sqrt(p), p);
    expect_near(tanh(x), 2 * sigmoid(2.0f * x) - 1);
    expect_near(sigmoid(x), 1 / (1 + exp(-x)));
    expect_near(sigmoid(x) + sigmoid(-x), 1);
    expect_near(softplus(x), log(1 + exp(x)));
    expect_near(log_sigmoid(x), log(sigmoid(x)));
    expect_near(abs(x), sqrt(x * x));
    expect_near(relu(x), max(0, x));
    expect_near(relu(x) - relu(-x), x);
    expect_near(square(sin(x)) + square(cos(x)), 1);
    expect_near(sin(x + y), sin(x) * cos(y) + cos(x) * sin(y));
    expect_near(erf(-x), -erf(x));
    expect_near(pow(p, 3), p * p * p);
    expect_near(pow(x, -2), 1 / (x * x), 1e-10);
    expect_near(pow(p, 0.5), sqrt(p));
    expect_near(pow(2, x), exp(x * log(D(2))));
    expect_near(floor(x), std::floor(x.value.value));
    D sum = x;
    sum += y, sum -= 1, sum *= 2, sum /= p;
    expect_near(sum, (x + y - 1) * 2 / p);
    expect_near(max(x, y) + min(x, y), x + y);
    expect_near(max(x, y) - min(x, y), abs(x - y));
    const D unit = random_dual(generator, 0, 1);
    expect_near(log1p_unit(unit), log(1 + unit));
  }
}

TEST(EngineDual, TangentsAreLimitsOfDifferences) {
  const auto f = [](const auto& x, const auto& y, const auto& z) {
    return tanh(x * y) / (square(z) + 1) + sigmoid(x - z) * softplus(y) -
           log(exp(x) + sqrt(exp(z))) + erf(x - y) * sin(y * z) + cos(x) * pow(1.5 + tanh(y), z);
  };
  const auto value = [&](const double(&v)[3]) {
    using N = Number<double>;
    return f(N(v[0]), N(v[1]), N(v[2])).value;
  };
  std::mt19937 generator(3);
  std::uniform_real_distribution<double> uniform(-2, 2);
  for (int i = 0; i < 50; ++i) {
    const double v[3] = {uniform(generator), uniform(generator), uniform(generator)};
    const D dual = f(D::variable(v[0], 0), D::variable(v[1], 1), D::variable(v[2], 2));
    for (int k = 0; k < 3; ++k) {
      const double step = 1e-5;
      double plus[3] = {v[0], v[1], v[2]}, minus[3] = {v[0], v[1], v[2]};
      plus[k] += step;
      minus[k] -= step;
      EXPECT_NEAR(dual.tangent[k].value, (value(plus) - value(minus)) / (2 * step), 1e-8);
    }
  }
}

TEST(EngineDual, SupportIsTheUnionOfWhatAValueDependsOn) {
  const D x = D::variable(1, 0), y = D::variable(2, 1), z = D::variable(0.5, 2);
  EXPECT_EQ(D(4).support, 0u);
  EXPECT_EQ(exp(x).support, 1u);
  EXPECT_EQ((x * y).support, 3u);
  EXPECT_EQ((x / z - y).support, 7u);
  EXPECT_EQ((2 + tanh(z)).support, 4u);
  EXPECT_EQ(floor(x).support, 0u);
  EXPECT_EQ(max(x, z).support, 5u);
  EXPECT_EQ(select(true, x, y).support, 3u);  // which one is chosen is known only when it runs
}

TEST(EngineDual, AChoiceTakesTheTangentsOfWhatItChose) {
  const D x = D::variable(1, 0), y = D::variable(2, 1);
  EXPECT_EQ(max(x, y).tangent[1].value, 1);
  EXPECT_EQ(max(x, y).tangent[0].value, 0);
  EXPECT_EQ(min(x, y).tangent[0].value, 1);
}

}  // namespace
}  // namespace pararnn
