// The two ends of what a recurrence can be: a linear one, which one correction of Newton's method
// solves, and a chaotic one, which nothing but the sequence itself can run. In float the operators'
// tests run both.
#include <gtest/gtest.h>

#include <cmath>

#include "catalogue.hpp"
#include "engine_test_support.hpp"
#include "pararnn/cpu/kernels.hpp"

namespace pararnn::test {
namespace {

TEST(EngineCatalogue, ALinearRecurrenceNeedsOneCorrection) {
  using T = double;
  const auto& cell = cell_under_test<T>("min_gru");
  // A gate that is nearly shut: every chunk depends on all before it.
  const Problem<T> p(cell.kernels, {2, 2000, 3}, 1, -8, 21);
  const Result<T> r = run(cell.kernels, p, {"newton", 64, 16});
  EXPECT_EQ(r.forward.columns_corrected, 0);  // none fails behind it
  EXPECT_EQ(r.forward.newton_iterations, 1);
  EXPECT_EQ(r.forward.columns_repaired, 0);
  std::vector<T> y(p.dy.size()), hT(p.h0.size());
  cell.loop(p.shape, p.u.data(), p.w.data(), p.h0.data(), y.data(), hT.data(), nullptr, {});
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(r.y[i], y[i], 20 * kDefaultTolerance<T> * (1 + std::abs(y[i]))) << i;
  }
  for (const bool follow : {false, true}) {
    const BoundedResult expected = bounds(cell, p, r, true, follow);
    EXPECT_LE(worst(r.y, expected.y), 1);
    EXPECT_LE(worst(r.du, expected.du), 1);
    EXPECT_LE(worst(r.dh0, expected.dh0), 1);
  }
}

TEST(EngineCatalogue, AChaoticRecurrenceIsRunInOrder) {
  using T = double;
  using C = LogisticMap;
  const auto kernels = cpu::make_kernels<C, T>();
  Problem<T> p(kernels, {1, 20000, 1}, 1, 0, 22);
  std::fill(p.u.begin(), p.u.end(), T(0));  // the map by itself
  p.w[0] = 0;
  p.h0[0] = T(0.3);

  // The mean of log |dh'/dh| along the loop: log 2 for the map x -> 1 - 2 x^2.
  Vec<double, 1> h = {p.h0[0]};
  double exponent = 0;
  for (std::int64_t t = 0; t < p.shape.steps; ++t) {
    const auto d = differentiate<C, 1>(h, Vec<double, 1>{0}, Vec<double, 1>{0});
    exponent += std::log(std::abs(d.jacobian(0, 0))) / double(p.shape.steps);
    h = d.next;
  }
  EXPECT_NEAR(exponent, std::log(2.0), 0.05);

  for (const char* way : {"sequential", "speculative", "newton"}) {
    SCOPED_TRACE(way);
    const Result<T> r = run(kernels, p, {way, 64, 16});
    if (way != std::string("sequential")) {
      EXPECT_EQ(r.forward.columns_repaired, 1);
    }
    EXPECT_LE(r.forward.largest_mismatch, 2 * kDefaultTolerance<T>);
    Vec<T, 1> before = {p.h0[0]};
    double residual = 0, spread = 0;
    for (std::int64_t t = 0; t < p.shape.steps; ++t) {
      const T next = next_state<C>(before, Vec<T, 1>{0}, Vec<T, 1>{0})[0];
      residual = std::max(residual, std::abs(double(r.y[t] - next)));
      spread = std::max(spread, std::abs(double(r.y[t])));
      before[0] = r.y[t];
    }
    // A tolerance at a boundary, times the largest slope.
    EXPECT_LE(residual, 4 * 2 * kDefaultTolerance<T> + 8 * std::numeric_limits<T>::epsilon());
    EXPECT_GT(spread, 0.9) << "the map has come to rest";
  }
}

}  // namespace
}  // namespace pararnn::test
