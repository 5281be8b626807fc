// Every cell of the registry and of examples/cells: derivatives are those of the step, and
// structure is structure.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "catalogue.hpp"
#include "pararnn/cells.hpp"
#include "pararnn/core/bounded.hpp"

namespace pararnn {
namespace {

template <class C>
class EngineCell : public testing::Test {
 public:
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams, N = S + U + P;
  using Arguments = Vec<double, N>;

  std::mt19937 generator{1};

  Arguments random_arguments() {
    std::normal_distribution<double> normal;
    Arguments x{};
    for (int i = 0; i < N; ++i) x[i] = normal(generator);
    for (int i = 0; i < S; ++i) x[i] = 0.1 + std::abs(x[i]);  // a normaliser is positive
    return x;
  }
  template <class T = double>
  static Vec<T, S> h(const Arguments& x) {
    Vec<T, S> v{};
    for (int i = 0; i < S; ++i) v[i] = T(x[i]);
    return v;
  }
  template <class T = double>
  static Vec<T, U> u(const Arguments& x) {
    Vec<T, U> v{};
    for (int i = 0; i < U; ++i) v[i] = T(x[S + i]);
    return v;
  }
  template <class T = double>
  static Vec<T, P> w(const Arguments& x) {
    Vec<T, P> v{};
    for (int i = 0; i < P; ++i) v[i] = T(x[S + U + i]);
    return v;
  }
  static Vec<double, S> step(const Arguments& x) { return next_state<C>(h(x), u(x), w(x)); }

  static Mat<double, S, N> difference_quotients(const Arguments& x) {
    const double size = 1e-6;
    Mat<double, S, N> jacobian{};
    for (int i = 0; i < N; ++i) {
      Arguments plus = x, minus = x;
      plus[i] += size;
      minus[i] -= size;
      for (int s = 0; s < S; ++s) {
        jacobian(s, i) = (step(plus)[s] - step(minus)[s]) / (2 * size);
      }
    }
    return jacobian;
  }
};

// The registry as a list of types. Each entry ends in a comma, so the list ends in a last type that
// is dropped again.
struct End {};
template <class Done, class... Rest>
struct WithoutEnd;
template <class... Done>
struct WithoutEnd<testing::Types<Done...>, End> {
  using type = testing::Types<Done...>;
};
template <class... Done, class First, class... Rest>
struct WithoutEnd<testing::Types<Done...>, First, Rest...>
    : WithoutEnd<testing::Types<Done..., First>, Rest...> {};
#define PARARNN_TYPE(name, Type) Type,
using Registry = WithoutEnd<testing::Types<>, PARARNN_ALL_CELLS(PARARNN_TYPE) End>::type;
#undef PARARNN_TYPE
TYPED_TEST_SUITE(EngineCell, Registry);

TYPED_TEST(EngineCell, DerivativesAreThoseOfTheStep) {
  using C = TypeParam;
  constexpr int N = TestFixture::N, S = TestFixture::S;
  for (int repeat = 0; repeat < 50; ++repeat) {
    const auto x = this->random_arguments();
    const auto expected = this->difference_quotients(x);
    const auto all = differentiate<C, N>(this->h(x), this->u(x), this->w(x));
    const auto state = differentiate<C, S>(this->h(x), this->u(x), this->w(x));
    const auto next = this->step(x);
    for (int s = 0; s < S; ++s) {
      EXPECT_DOUBLE_EQ(all.next[s], next[s]);
      for (int i = 0; i < N; ++i) {
        EXPECT_NEAR(all.jacobian(s, i), expected(s, i), 1e-7 * (1 + std::abs(expected(s, i))))
            << "d component " << s << " / d argument " << i;
      }
      for (int i = 0; i < S; ++i) EXPECT_DOUBLE_EQ(state.jacobian(s, i), all.jacobian(s, i));
    }
  }
}

TYPED_TEST(EngineCell, LinearizeMultipliesTheJacobianFromTheLeft) {
  using C = TypeParam;
  constexpr int S = TestFixture::S;
  const auto x = this->random_arguments();
  std::normal_distribution<double> normal;
  Mat<double, S, S> m{};
  for (auto& row : m.data) {
    for (double& entry : row) entry = normal(this->generator);
  }
  const auto linear = linearize<C>(this->h(x), this->u(x), this->w(x), m);
  const auto product = differentiate<C, S>(this->h(x), this->u(x), this->w(x)).jacobian * m;
  for (int s = 0; s < S; ++s) {
    EXPECT_DOUBLE_EQ(linear.next[s], this->step(x)[s]);
    for (int i = 0; i < S; ++i) EXPECT_NEAR(linear.product(s, i), product(s, i), 1e-12);
  }
}

TYPED_TEST(EngineCell, VectorJacobianProductsAreTheTransposedJacobian) {
  using C = TypeParam;
  constexpr int N = TestFixture::N, S = TestFixture::S, U = TestFixture::U;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto x = this->random_arguments();
    Vec<double, S> lambda{};
    std::normal_distribution<double> normal;
    for (int s = 0; s < S; ++s) lambda[s] = normal(this->generator);
    const auto jacobian = this->difference_quotients(x);
    const auto g = vjp<C>(this->h(x), this->u(x), this->w(x), lambda);
    for (int i = 0; i < N; ++i) {
      double expected = 0;
      for (int s = 0; s < S; ++s) expected += lambda[s] * jacobian(s, i);
      const double got = i < S ? g.h[i] : i < S + U ? g.u[i - S] : g.w[i - S - U];
      EXPECT_NEAR(got, expected, 1e-6 * (1 + std::abs(expected)));
    }
  }
}

TYPED_TEST(EngineCell, ThePatternHoldsEveryNonzeroAndEveryArgumentMatters) {
  using C = TypeParam;
  constexpr int N = TestFixture::N, S = TestFixture::S;
  constexpr auto pattern = jacobian_pattern<C>();
  std::set<int> used;
  for (int repeat = 0; repeat < 50; ++repeat) {
    const auto x = this->random_arguments();
    const auto jacobian = differentiate<C, N>(this->h(x), this->u(x), this->w(x)).jacobian;
    for (int s = 0; s < S; ++s) {
      for (int i = 0; i < N; ++i) {
        if (jacobian(s, i) == 0) continue;
        EXPECT_TRUE(pattern[s].depends_on(i)) << "component " << s << ", argument " << i;
        used.insert(i);
      }
    }
  }
  for (int i = 0; i < N; ++i) {
    // The old output of a cell may go unused only if the cell has other state.
    if (S > 1 && i < S) continue;
    EXPECT_TRUE(used.count(i)) << "argument " << i << " has no effect";
  }
}

TYPED_TEST(EngineCell, BoundsEncloseTheRoundingOfSinglePrecision) {
  using C = TypeParam;
  constexpr int N = TestFixture::N, S = TestFixture::S;
  using Number = Bounded<float>;
  double closest = 0;
  for (int repeat = 0; repeat < 2000; ++repeat) {
    auto x = this->random_arguments();
    for (int i = 0; i < N; ++i) x[i] = float(2 * x[i]);
    const auto bounded = differentiate<C, N>(
        this->template h<Number>(x), this->template u<Number>(x), this->template w<Number>(x));
    const auto single = differentiate<C, N>(this->template h<float>(x), this->template u<float>(x),
                                            this->template w<float>(x));
    for (int s = 0; s < S; ++s) {
      const double off = std::abs(single.next[s] - bounded.next[s].value);
      ASSERT_LE(off, bounded.next[s].error);
      closest = std::max(closest, off / bounded.next[s].error);
      for (int i = 0; i < N; ++i) {
        const Number& j = bounded.jacobian(s, i);
        ASSERT_LE(std::abs(single.jacobian(s, i) - j.value), j.error);
      }
    }
  }
  EXPECT_GT(closest, 0.02) << "the bounds are too wide to tell anything";
}

}  // namespace
}  // namespace pararnn
