#include "train/stability.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "train/run_report.hpp"
#include "train_test_support.hpp"

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

TEST(RunReport, TellsOfSkippedStepsAndSpikes) {
  const TemporaryFolder folder;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> show(
      std::fopen((folder / "shown").c_str(), "w"), std::fclose);
  RunReport report({.log = folder / "log.jsonl", .log_every = 2, .show = show.get()});
  const double nan = -std::nan("");
  report.step({.step = 1, .tokens = 5, .loss = 3}, 1, 9);
  report.step({.step = 2,
               .tokens = 5,
               .loss = nan,
               .gradient_norm = nan,
               .skipped = true,
               .skipped_steps = 1},
              2, 8);
  report.step({.step = 3, .tokens = 5, .loss = 7, .skipped_steps = 1, .z_score = 6.5}, 3, 7);
  report.step({.step = 4, .tokens = 5, .loss = 3, .skipped_steps = 1, .z_score = 5.9}, 4, 6);
  std::vector<std::string> kinds;
  const std::vector<nlohmann::json> events = read_run_log(folder / "log.jsonl");
  for (const nlohmann::json& event : events) kinds.push_back(event["event"]);
  EXPECT_EQ(kinds, (std::vector<std::string>{"step", "skip", "spike", "step"}));
  EXPECT_EQ(events[0]["loss"], 3) << "of the step that was not skipped";
  EXPECT_TRUE(events[0]["gradient_norm"].is_null());
  EXPECT_EQ(events[0]["skipped"], 1);
  EXPECT_EQ(events[1]["step"], 2);
  EXPECT_EQ(events[2]["z_score"], 6.5);
  EXPECT_EQ(events[3]["loss"], 5);
  const std::string shown = data::read(folder / "shown");
  EXPECT_NE(shown.find("step 2: skipped, as its loss is nan"), std::string::npos) << shown;
  EXPECT_NE(shown.find("step 3: a spike, loss 7.0000"), std::string::npos) << shown;
  EXPECT_EQ(shown.find("step 4: a spike"), std::string::npos) << shown;
}

}  // namespace
}  // namespace pararnn::train
