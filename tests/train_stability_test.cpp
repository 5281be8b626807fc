#include "train/stability.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace pararnn::train {
namespace {

TEST(Stability, TheScoreIsThatOfTheRecentLosses) {
  std::mt19937 random(1);
  std::normal_distribution<double> noise(3, 0.5);
  Stability stability;
  std::vector<double> losses;
  for (int step = 0; step < 300; ++step) {
    const double loss = noise(random);
    const size_t count = std::min<size_t>(losses.size(), 128);
    double sum = 0, squares = 0;
    for (size_t i = losses.size() - count; i < losses.size(); ++i) {
      sum += losses[i];
      squares += losses[i] * losses[i];
    }
    const double n = static_cast<double>(count), mean = sum / n;
    const double expected = count < 32 ? 0 : (loss - mean) / std::sqrt(squares / n - mean * mean);
    EXPECT_NEAR(stability.add(loss), expected, 1e-9);
    losses.push_back(loss);
  }
  EXPECT_EQ(stability.recent, std::vector<double>(losses.end() - 128, losses.end()));
}

TEST(Stability, NoiseIsNoSpikeAndAJumpIs) {
  std::mt19937 random(2);
  std::normal_distribution<double> noise(0, 0.1);
  Stability stability;
  for (int step = 0; step < 2000; ++step) {
    const double falling = 2 + 4 * std::exp(-step / 300.0);
    EXPECT_LT(stability.add(falling + noise(random)), kSpike);
  }
  EXPECT_GT(stability.add(4), kSpike);
  EXPECT_LT(stability.add(2), kSpike);
}

TEST(Stability, LastDigitsOfAnEvenCurveAreNoSpike) {
  for (const double level : {0.0, 1e-9, 1.0, 10.0}) {
    Stability stability;
    for (int step = 0; step < 200; ++step) {
      EXPECT_LT(stability.add(step % 50 == 49 ? level * (1 + 1e-12) : level), kSpike);
    }
  }
}

TEST(Stability, CountsSkippedSteps) {
  Stability stability;
  stability.add_skipped();
  stability.add_skipped();
  EXPECT_EQ(stability.skipped_in_a_row, 2);
  stability.add(1);
  stability.add_skipped();
  EXPECT_EQ(stability.skipped, 3);
  EXPECT_EQ(stability.skipped_in_a_row, 1);
}

}  // namespace
}  // namespace pararnn::train
