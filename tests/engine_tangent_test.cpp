// The tangent of a cell is a cell: its loop is the derivative of the cell's loop, its step's
// derivatives are the cell's second ones, and the engine runs it like any other.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "catalogue.hpp"
#include "engine_test_support.hpp"
#include "pararnn/core/tangent.hpp"
#include "pararnn/cpu/kernels.hpp"

namespace pararnn::test {
namespace {

std::vector<double> normals(std::size_t size, double scale, std::mt19937& generator) {
  std::normal_distribution<double> normal;
  std::vector<double> x(size);
  for (double& v : x) v = scale * normal(generator);
  return x;
}

/// Arrays of (rows, N, D) put together to (rows, 2 N, D).
std::vector<double> side_by_side(const std::vector<double>& a, const std::vector<double>& b,
                                 std::int64_t size) {
  std::vector<double> both;
  for (std::size_t at = 0; at < a.size(); at += size) {
    both.insert(both.end(), a.begin() + at, a.begin() + at + size);
    both.insert(both.end(), b.begin() + at, b.begin() + at + size);
  }
  return both;
}

template <class C>
void expect_the_derivative_of_the_loop(const std::string& name) {
  if (name == "logistic_map") return;  // differences of a chaotic trajectory are no derivatives
  SCOPED_TRACE(name);
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const Shape shape{2, 40, 3};
  const auto [B, T, D] = shape;
  std::mt19937 generator(11);
  auto h0 = normals(B * S * D, 1, generator);
  for (double& v : h0) v = 0.1 + std::abs(v);
  const auto u = normals(B * T * U * D, 1, generator), w = normals(P * D, 0.5, generator);
  const auto h0_along = normals(h0.size(), 1, generator), u_along = normals(u.size(), 1, generator);
  const auto w_along = normals(w.size(), 1, generator);
  const auto at = [&](double step) {
    const auto moved = [&](std::vector<double> x, const std::vector<double>& along) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] += step * along[i];
      return x;
    };
    std::vector<double> y(B * T * D), hT(h0.size());
    reference_forward<C>(shape, moved(u, u_along).data(), moved(w, w_along).data(),
                         moved(h0, h0_along).data(), y.data(), hT.data());
    y.insert(y.end(), hT.begin(), hT.end());
    return y;
  };
  const double step = 1e-6;
  const auto plus = at(step), minus = at(-step), here = at(0);

  std::vector<double> y(B * T * D), hT(2 * h0.size());
  reference_forward<Tangent<C>>(shape, side_by_side(u, u_along, U * D).data(),
                                side_by_side(w, w_along, P * D).data(),
                                side_by_side(h0_along, h0, S * D).data(), y.data(), hT.data());
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double slope = (plus[i] - minus[i]) / (2 * step);
    ASSERT_NEAR(y[i], slope, 1e-7 * (1 + std::abs(slope))) << "output " << i;
  }
  for (std::int64_t i = 0; i < B * S * D; ++i) {
    const std::int64_t b = i / (S * D), rest = i % (S * D);
    const double slope = (plus[y.size() + i] - minus[y.size() + i]) / (2 * step);
    ASSERT_NEAR(hT[b * 2 * S * D + rest], slope, 1e-7 * (1 + std::abs(slope))) << "end " << i;
    ASSERT_DOUBLE_EQ(hT[(b * 2 + 1) * S * D + rest], here[y.size() + i]) << "state " << i;
  }
}

TEST(EngineTangent, IsTheDerivativeOfTheLoop) {
#define PARARNN_CHECK(name, Type) expect_the_derivative_of_the_loop<Type>(#name);
  PARARNN_ALL_CELLS(PARARNN_CHECK)
#undef PARARNN_CHECK
}

/// The derivative of a step along its i-th argument; x holds state, inputs and weights.
template <class C>
Vec<double, C::kState> derivative_along(int i, const std::vector<double>& x) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  using Along = Dual<double, 1>;
  std::vector<Along> arguments(x.begin(), x.end());
  arguments[i] = Along::variable(x[i], 0);
  const auto next = next_state<C>(load_channel<Along, S>(arguments.data(), 1),
                                  load_channel<Along, U>(arguments.data() + S, 1),
                                  load_channel<Along, P>(arguments.data() + S + U, 1));
  Vec<double, S> result{};
  for (int s = 0; s < S; ++s) result[s] = next[s].tangent[0];
  return result;
}

template <class C>
void expect_second_derivatives(const std::string& name) {
  SCOPED_TRACE(name);
  using Twice = Tangent<C>;
  constexpr int S = Twice::kState, U = Twice::kInputs, P = Twice::kParams, N = S + U + P;
  std::mt19937 generator(12);
  for (int repeat = 0; repeat < 10; ++repeat) {
    auto x = normals(N, 1, generator);
    for (int s = S / 2; s < S; ++s) x[s] = 0.1 + std::abs(x[s]);
    const auto next = [&](const std::vector<double>& at) {
      return next_state<Twice>(load_channel<double, S>(at.data(), 1),
                               load_channel<double, U>(at.data() + S, 1),
                               load_channel<double, P>(at.data() + S + U, 1));
    };
    const double step = 1e-6;
    for (int i = 0; i < N; ++i) {
      const auto found = derivative_along<Twice>(i, x);
      auto plus = x, minus = x;
      plus[i] += step, minus[i] -= step;
      for (int s = 0; s < S; ++s) {
        const double slope = (next(plus)[s] - next(minus)[s]) / (2 * step);
        ASSERT_NEAR(found[s], slope, 1e-6 * (1 + std::abs(slope)))
            << "d component " << s << " / d argument " << i;
        if (found[s] != 0) {
          ASSERT_TRUE(kJacobianPattern<Twice>[s].depends_on(i));
        }
      }
    }
  }
}

TEST(EngineTangent, ItsDerivativesAreSecondOnes) {
#define PARARNN_CHECK(name, Type) expect_second_derivatives<Type>(#name);
  PARARNN_ALL_CELLS(PARARNN_CHECK)
#undef PARARNN_CHECK
}

// In float; the operators' tests run it in double.
TEST(EngineTangent, TheEngineRunsIt) {
  using Twice = Tangent<Gru>;
  const CellUnderTest<float> cell = {
      "gru", cpu::make_kernels<Twice, float>(), &reference_forward<Twice, float>,
      &reference_backward<Twice, float>, &reference_bounds<Twice, float>};
  for (const char* way : {"sequential", "speculative", "newton"}) {
    SCOPED_TRACE(way);
    const Problem<float> p(cell.kernels, {2, 150, 5}, 1, -1, 13);
    const Result<float> r = run(cell.kernels, p, {way, 32, 16});
    EXPECT_TRUE(r.in_bounds_of_memory);
    for (const bool follow : {false, true}) {
      const BoundedResult expected = bounds(cell, p, r, true, follow);
      EXPECT_LE(worst(r.y, expected.y), 1);
      EXPECT_LE(worst(r.hT, expected.hT), 1);
      EXPECT_LE(worst(r.du, expected.du), 1);
      EXPECT_LE(worst(r.dw, expected.dw), 1);
    }
  }
}

}  // namespace
}  // namespace pararnn::test
