// Forward and backward for all cells: whatever the shape, plan, layout, storage, weights
// and threads, the result is that of the plain loop.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#include "engine_test_support.hpp"

namespace pararnn::test {
namespace {

using cpu::Storage;

struct Case {
  Shape shape;
  double weight_scale, gate_bias;
  Running how;
};

std::string describe(const std::string& cell, const Case& c) {
  return cell + " B" + std::to_string(c.shape.batch) + " T" + std::to_string(c.shape.steps) + " D" +
         std::to_string(c.shape.channels) + " weights " + std::to_string(c.weight_scale) +
         " gate bias " + std::to_string(c.gate_bias) + " plan " + c.how.way + " chunk " +
         std::to_string(c.how.chunk) + " burn-in " + std::to_string(c.how.burn_in);
}

template <class T>
void expect_right(const CellUnderTest<T>& cell, const Case& c, unsigned seed) {
  SCOPED_TRACE(describe(cell.name, c));
  const Problem<T> p(cell.kernels, c.shape, c.weight_scale, c.gate_bias, seed);
  expect_right(cell, p, run(cell.kernels, p, c.how), c.how.with_h0);
}

template <class T>
class EngineScan : public testing::Test {};
using Arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(EngineScan, Arithmetics);

constexpr const char* kWays[] = {"sequential", "speculative", "newton"};

TYPED_TEST(EngineScan, EqualsTheLoopOverRandomShapesPlansAndLayouts) {
  std::mt19937 generator(1);
  const auto pick = [&](auto&&... of) {
    const std::int64_t values[] = {of...};
    return values[generator() % sizeof...(of)];
  };
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (int i = 0; i < 24; ++i) {
      Case c{{pick(1, 2, 3), pick(1, 2, 15, 16, 17, 31, 33, 100, 250), pick(1, 3, 8, 19, 33, 64)},
             1,
             double(pick(-4, -1, 0, 2)),
             {kWays[i % 3], pick(0, 16, 32, 48, 96), pick(-1, 0, 16, 64), kLayouts[generator() % 4],
              std::nullopt, cpu::serial_executor(), generator() % 2 == 0}};
      expect_right(cell, c, generator());
    }
  }
}

TYPED_TEST(EngineScan, EqualsTheLoopAtAnyWeightsAndGateBiases) {
  unsigned seed = 100;
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (const double scale : {0.5, 2.0, 8.0}) {
      for (const double bias : {-8.0, 0.0, 8.0}) {
        for (const char* way : kWays) {
          Case c{{1, 210, 9}, scale, bias, {way, 32, 32}};
          expect_right(cell, c, ++seed);
        }
      }
    }
  }
}

TYPED_TEST(EngineScan, TheBoundsOfAWellConditionedProblemAreTight) {
  const double unit = std::numeric_limits<TypeParam>::epsilon();
  // Two cells have jumps in their derivatives, and one is an oscillator that hardly damps an error.
  const std::set<std::string> others = {"indrnn_relu", "logistic_map", "cornn"};
  for (const auto& cell : cells_under_test<TypeParam>()) {
    if (others.count(cell.name)) continue;
    SCOPED_TRACE(cell.name);
    const Problem<TypeParam> p(cell.kernels, {2, 200, 7}, 0.5, 0, 5);
    Running how{"sequential"};
    const auto r = run(cell.kernels, p, how);
    const BoundedResult expected = bounds(cell, p, r, true, false);
    const auto expect_tight = [](const BoundedArray& array, double most) {
      for (std::size_t i = 0; i < array.value.size(); ++i) {
        ASSERT_LE(array.bound[i], most * (1 + std::abs(array.value[i])));
      }
    };
    expect_tight(expected.y, 200 * unit);
    expect_tight(expected.hT, 200 * unit);
    expect_tight(expected.du, 2000 * unit);
    expect_tight(expected.dw, 20000 * unit);
  }
}

// At u = h = 0 the state stays 0, and each step back multiplies the adjoint by w.
TEST(EngineScanBounds, HoldUntilAGradientOverflows) {
  const Shape shape{1, 60, 1};
  const std::vector<double> zeros(60), w = {8}, dhT = {1};
  const Trajectory states{zeros.data(), zeros.data()};
  const BoundedResult expected = reference_bounds<Elman, float>(
      shape, zeros.data(), w.data(), nullptr, zeros.data(), dhT.data(), {64, 64, 1e-6}, &states);
  for (int t = 0; t < 60; ++t) {
    const double du = std::exp2(3 * (59 - t));
    EXPECT_EQ(expected.du.value[t], du);
    EXPECT_EQ(std::isnan(expected.du.bound[t]), 8 * du >= 0x1p127) << t;
    if (8 * du < 0x1p127) {
      EXPECT_LT(expected.du.bound[t], 1e-4 * du) << t;
    }
  }
  EXPECT_TRUE(std::isnan(expected.dw.bound[0]));
  EXPECT_TRUE(std::isnan(expected.dh0.bound[0]));
}

TYPED_TEST(EngineScan, TheBoundsNoticeAWrongNumber) {
  for (const auto& cell : cells_under_test<TypeParam>()) {
    SCOPED_TRACE(cell.name);
    Running how{"newton", 16, 0};
    const double off = 1e3 * kDefaultTolerance<TypeParam>;
    {
      const Problem<TypeParam> p(cell.kernels, {1, 64, 5}, 8, 0, 6);
      auto r = run(cell.kernels, p, how);
      for (const std::size_t i : {0, 77, 150, 319}) {
        const TypeParam right = r.y[i];
        r.y[i] += TypeParam(off);
        EXPECT_GT(worst(r.y, bounds(cell, p, r, true, true).y), 1) << i;
        r.y[i] = right;
      }
    }
    const Problem<TypeParam> p(cell.kernels, {1, 64, 5}, 1, 0, 6);
    auto r = run(cell.kernels, p, how);
    for (const std::size_t i : {std::size_t(0), r.du.size() / 2, r.du.size() - 1}) {
      const TypeParam right = r.du[i];
      r.du[i] += TypeParam(off) * (1 + std::abs(right));
      EXPECT_GT(worst(r.du, bounds(cell, p, r, true, true).du), 1) << i;
      r.du[i] = right;
    }
  }
}

TYPED_TEST(EngineScan, ThreadsChangeNoBit) {
  const cpu::Executor two_threads{2, [](std::int64_t count, const auto& task) {
                                    std::atomic<std::int64_t> next{0};
                                    const auto work = [&] {
                                      for (auto i = next++; i < count; i = next++) task(i);
                                    };
                                    std::thread other(work);
                                    work();
                                    other.join();
                                  }};
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (const char* way : kWays) {
      SCOPED_TRACE(cell.name + " " + way);
      const Problem<TypeParam> p(cell.kernels, {2, 300, 37}, 4, -1, 7);
      Running how{way, 48, 16};
      // One chunk more or less is the planner's answer to threads, so the chunk is given; whether
      // failing columns are walked or corrected depends on threads, so both claim to be two.
      how.executor.threads = 2;
      const auto serial = run(cell.kernels, p, how);
      how.executor = two_threads;
      const auto threaded = run(cell.kernels, p, how);
      // Bit by bit: where a recurrence overflows, a NaN is right.
      const auto expect_same = [](const auto& a, const auto& b) {
        ASSERT_EQ(a.size(), b.size());
        EXPECT_TRUE(a.empty() || std::memcmp(a.data(), b.data(), sizeof(a[0]) * a.size()) == 0);
      };
      expect_same(serial.y, threaded.y);
      expect_same(serial.hT, threaded.hT);
      expect_same(serial.du, threaded.du);
      expect_same(serial.dw, threaded.dw);
      expect_same(serial.dh0, threaded.dh0);
    }
  }
}

TEST(EngineScan, HalfStorageIsTheRoundingOfSingleStorage) {
  for (const auto& cell : cells_under_test<float>()) {
    for (const auto storage : {Storage::kFloat16, Storage::kBFloat16}) {
      for (const Layout layout : kLayouts) {
        SCOPED_TRACE(cell.name);
        const Problem<float> p(cell.kernels, {2, 70, 21}, 1, 0, 8);
        Running how{"newton", 32, 16, layout, Storage::kFloat32};
        const auto single = run(cell.kernels, p, how);
        how.storage = storage;
        const auto half = run(cell.kernels, p, how);
        EXPECT_TRUE(half.in_bounds_of_memory);
        EXPECT_EQ(half.y, rounded(single.y, storage));
        EXPECT_EQ(half.du, rounded(single.du, storage));
        EXPECT_EQ(half.hT, single.hT);
        EXPECT_EQ(half.dw, single.dw);
        EXPECT_EQ(half.dh0, single.dh0);
      }
    }
  }
}

TYPED_TEST(EngineScan, StoringPastTheCachesChangesNothing) {
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (const auto storage : {Storage::kBFloat16, kStorageOf<TypeParam>}) {
      for (const std::int64_t channels : {64, 96, 83}) {
        for (const Layout layout : kLayouts) {
          SCOPED_TRACE(cell.name + " D" + std::to_string(channels));
          const Problem<TypeParam> p(cell.kernels, {2, 70, channels}, 1, 0, 8);
          Running how{"speculative", 32, 16, layout, storage};
          const auto expected = run(cell.kernels, p, how);
          how.streamed = true;
          const auto actual = run(cell.kernels, p, how);
          EXPECT_TRUE(actual.in_bounds_of_memory);
          EXPECT_EQ(actual.y, expected.y);
          EXPECT_EQ(actual.du, expected.du);
        }
      }
    }
  }
}

TYPED_TEST(EngineScan, NotANumberAndInfinityAreWhereTheLoopHasThem) {
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (const double special : {double(INFINITY), -double(INFINITY), double(NAN)}) {
      for (const char* way : kWays) {
        SCOPED_TRACE(cell.name + " " + way + " " + std::to_string(special));
        Problem<TypeParam> p(cell.kernels, {1, 150, 6}, 1, 0, 9);
        p.u[70 * p.U * 6 + 2] = TypeParam(special);  // step 70, first input, channel 2
        std::vector<TypeParam> y(p.dy.size()), hT(p.dhT.size());
        cell.loop(p.shape, p.u.data(), p.w.data(), p.h0.data(), y.data(), hT.data(), nullptr, {});
        Running how{way, 32, 16};
        const auto r = run(cell.kernels, p, how);
        expect_same_kind(r.y, y);
        expect_same_kind(r.hT, hT);
      }
    }
  }
}

TYPED_TEST(EngineScan, LongMemoryIsCorrectedNotWrong) {
  for (const auto& cell : cells_under_test<TypeParam>()) {
    if (cell.name != "gru" && cell.name != "lstm") continue;
    for (const char* way : {"speculative", "newton"}) {
      SCOPED_TRACE(cell.name + " " + way);
      // Fewer columns than lanes: where they are more, failing columns are walked instead.
      const Problem<TypeParam> p(cell.kernels, {1, 400, 3}, 1, cell.name == "gru" ? -6 : 6, 10);
      Running how{way, 64, 16};
      const auto r = run(cell.kernels, p, how);
      EXPECT_EQ(r.forward.columns, 3);
      EXPECT_GT(r.forward.columns_corrected, 0);
      EXPECT_GT(r.forward.newton_iterations, 0);
      EXPECT_LE(r.forward.largest_mismatch, kDefaultTolerance<TypeParam>);
      EXPECT_EQ(r.forward.plan.chunks, 7);
    }
  }
}

}  // namespace
}  // namespace pararnn::test
