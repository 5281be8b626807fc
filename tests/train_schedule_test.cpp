#include "train/schedule.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

/// Random curves, among them some without a warm-up.
class ScheduleTest : public testing::TestWithParam<int> {
 protected:
  double uniform(double least, double most) {
    return std::uniform_real_distribution(least, most)(random_);
  }

  std::mt19937 random_{static_cast<uint32_t>(GetParam())};
  Schedule schedule_{uniform(1e-5, 1), uniform(0, 1), GetParam() % 3 == 0 ? 0 : uniform(0.01, 0.9)};

  /// The same with a decay at the end.
  Schedule stable_until(double share) const {
    Schedule schedule = schedule_;
    schedule.shape = ScheduleShape::kWarmupStableDecay;
    schedule.decay = 1 - share;
    return schedule;
  }
};

TEST_P(ScheduleTest, StaysAtThePeakUntilItsDecayWhichIsALine) {
  const double start = uniform(schedule_.warmup, 0.99), share = uniform(0, 1);
  const Schedule schedule = stable_until(start);
  const auto rate = [&](double progress) { return learning_rate(schedule, progress); };
  const double end = schedule.peak * schedule.floor;
  EXPECT_EQ(rate(share * schedule.warmup), learning_rate(schedule_, share * schedule.warmup));
  EXPECT_EQ(rate(schedule.warmup + share * (start - schedule.warmup)), schedule.peak);
  EXPECT_NEAR(rate(start + share * (1 - start)), schedule.peak + share * (end - schedule.peak),
              1e-12 * schedule.peak);
  EXPECT_NEAR(rate(1), end, 1e-15 * schedule.peak);
  EXPECT_EQ(rate(2), rate(1));
  EXPECT_EQ(learning_rate(stable_until(1), 1), schedule.peak) << "without a decay";
}

TEST(Schedule, HasTwoShapes) {
  EXPECT_EQ(schedule_shape("cosine"), ScheduleShape::kCosine);
  EXPECT_EQ(schedule_shape("wsd"), ScheduleShape::kWarmupStableDecay);
  EXPECT_THROW(schedule_shape("linear"), Error);
}

TEST_P(ScheduleTest, PassesThroughItsThreePoints) {
  if (schedule_.warmup > 0) {
    EXPECT_EQ(learning_rate(schedule_, 0), 0);
  }
  EXPECT_DOUBLE_EQ(learning_rate(schedule_, schedule_.warmup), schedule_.peak);
  EXPECT_NEAR(learning_rate(schedule_, 1), schedule_.peak * schedule_.floor,
              1e-15 * schedule_.peak);
}

TEST_P(ScheduleTest, WarmsUpLinearly) {
  const double share = uniform(0, 1);
  if (schedule_.warmup == 0) return;
  EXPECT_NEAR(learning_rate(schedule_, share * schedule_.warmup), share * schedule_.peak,
              1e-12 * schedule_.peak);
}

TEST_P(ScheduleTest, FallsAndIsSymmetricAboutItsMiddle) {
  const auto after_warmup = [&](double share) {
    return learning_rate(schedule_, schedule_.warmup + share * (1 - schedule_.warmup));
  };
  double last = after_warmup(0);
  for (int i = 1; i <= 100; ++i) {
    EXPECT_LT(after_warmup(i / 100.0), last);
    last = after_warmup(i / 100.0);
  }
  const double share = uniform(0, 1);
  EXPECT_NEAR(after_warmup(share) + after_warmup(1 - share), schedule_.peak * (1 + schedule_.floor),
              1e-12 * schedule_.peak);
}

TEST_P(ScheduleTest, StaysAtItsEndBeyondIt) {
  EXPECT_EQ(learning_rate(schedule_, 1 + uniform(0, 10)), learning_rate(schedule_, 1));
}

INSTANTIATE_TEST_SUITE_P(RandomCurves, ScheduleTest, testing::Range(0, 20));

}  // namespace
}  // namespace pararnn::train
