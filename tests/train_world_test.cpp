// Several ranks that train one model: here trainers on threads of one process.
#include "train/world.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <csignal>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "nn/model_files.hpp"
#include "train/checkpoint.hpp"
#include "train/run_log.hpp"
#include "train/trainer.hpp"
#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

/// Ranks on threads, that meet in what they share.
class ThreadWorld : public World {
 public:
  struct Meeting {
    explicit Meeting(int64_t size) : all(size), tensors(size_t(size)), numbers(size_t(size)) {}
    std::barrier<> all;
    std::vector<std::vector<torch::Tensor>> tensors;
    std::vector<double> numbers;
  };

  ThreadWorld(std::shared_ptr<Meeting> meeting, int64_t rank)
      : meeting_(std::move(meeting)), rank_(rank) {}
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return std::ssize(meeting_->tensors); }

  void average(std::span<const torch::Tensor> tensors) override {
    const torch::NoGradGuard no_gradient;
    meeting_->tensors[size_t(rank_)] = {tensors.begin(), tensors.end()};
    meeting_->all.arrive_and_wait();
    if (rank_ == 0) {
      for (size_t i = 0; i < tensors.size(); ++i) {
        torch::Tensor sum = torch::zeros_like(tensors[i]);
        for (const auto& of_rank : meeting_->tensors) sum += of_rank.at(i);
        for (const auto& of_rank : meeting_->tensors) of_rank[i].copy_(sum / size());
      }
    }
    meeting_->all.arrive_and_wait();
  }

  int64_t largest(int64_t number) override {
    if (asked_) number = asked_(number);
    return int64_t(meet(double(number), [](const auto& all) { return std::ranges::max(all); }));
  }
  double of_first(double number) override {
    return meet(number, [](const auto& all) { return all[0]; });
  }

  /// What this rank says in place of a number when the largest is asked for.
  void answer(std::function<int64_t(int64_t)> asked) { asked_ = std::move(asked); }
  /// Of a rank that has failed: the others go on without it.
  void leave() { meeting_->all.arrive_and_drop(); }

 private:
  template <class Choose>
  double meet(double number, Choose choose) {
    meeting_->numbers[size_t(rank_)] = number;
    meeting_->all.arrive_and_wait();
    const double chosen = choose(meeting_->numbers);
    meeting_->all.arrive_and_wait();
    return chosen;
  }

  std::shared_ptr<Meeting> meeting_;
  int64_t rank_;
  std::function<int64_t(int64_t)> asked_;
};

class WorldTest : public testing::Test {
 protected:
  static constexpr int64_t kRanks = 2;

  WorldTest() {
    data::Random random(1);
    write(folder_ / "text.txt", data::random_text(random, 5000));
    for (int64_t rank = 0; rank < kRanks; ++rank)
      worlds_.push_back(std::make_shared<ThreadWorld>(meeting_, rank));
    for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], nullptr, &before_[i]);
  }
  // Each run has handlers of its own, and those of two end in any order.
  ~WorldTest() override {
    for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }

  fs::path folder_of(int64_t rank) const { return folder_ / ("rank" + std::to_string(rank)); }

  /// Trainers of all ranks, each with an empty folder of its own for what it writes.
  std::vector<std::unique_ptr<Trainer>> make_ranks() {
    std::vector<std::unique_ptr<Trainer>> trainers;
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      fs::remove_all(folder_of(rank));
      fs::create_directories(folder_of(rank));
      trainers.push_back(std::make_unique<Trainer>(config_, model_, dataset(), folder_of(rank),
                                                   torch::kCPU, nullptr, worlds_[size_t(rank)]));
    }
    return trainers;
  }
  data::Dataset dataset() const {
    return data::open_dataset(config_.data, {.held_out_share = config_.held_out});
  }

  /// What run() returns on each rank.
  std::vector<int> run(const std::vector<std::unique_ptr<Trainer>>& trainers) {
    std::vector<int> results(trainers.size(), -1);
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < trainers.size(); ++rank) {
      threads.emplace_back([&, rank] {
        try {
          results[rank] = trainers[rank]->run();
        } catch (const std::exception& error) {
          worlds_[rank]->leave();
          ADD_FAILURE() << "rank " << rank << ": " << error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return results;
  }

  static void expect_same_weights(Trainer& one, Trainer& other, double tolerance) {
    const auto weights = nn::parameters_of(one.model());
    for (const auto& [name, weight] : nn::parameters_of(other.model()))
      EXPECT_TRUE(torch::allclose(weights.at(name), weight, tolerance, tolerance)) << name;
  }

  static std::vector<double> losses(const fs::path& run) {
    std::vector<double> losses;
    for (const auto& event : read_run_log(run / kLogFile)) {
      if (event["event"] == "step") losses.push_back(event["loss"]);
    }
    return losses;
  }

  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kSignals.size()> before_;
  TemporaryFolder folder_;
  TrainConfig config_{.data = (folder_ / "text.txt").string(),
                      .batch = 2,
                      .length = 16,
                      .steps = 8,
                      .clip = 0.5,
                      .z_loss = 0.01,
                      .validate_every = 3,
                      .validation_tokens = 100,
                      .checkpoint_every = 3,
                      .keep = 100,
                      .log_every = 1};
  nn::ModelConfig model_{.width = 16, .layers = 1};
  std::shared_ptr<ThreadWorld::Meeting> meeting_ = std::make_shared<ThreadWorld::Meeting>(kRanks);
  std::vector<std::shared_ptr<ThreadWorld>> worlds_;
};

TEST_F(WorldTest, RanksTrainAsOneProcessDoesOnTheBatchesOfAll) {
  for (const int64_t accumulate : {1, 3}) {
    SCOPED_TRACE(accumulate);
    config_.accumulate = accumulate;
    const auto ranks = make_ranks();
    EXPECT_EQ(run(ranks), (std::vector{0, 0}));
    config_.accumulate = kRanks * accumulate;
    const fs::path alone = folder_ / ("alone" + std::to_string(accumulate));
    fs::create_directories(alone);
    Trainer trainer(config_, model_, dataset(), alone);
    EXPECT_EQ(trainer.run(), 0);
    expect_same_weights(*ranks[0], *ranks[1], 0);
    expect_same_weights(*ranks[0], trainer, 1e-5);
    const auto actual = losses(folder_of(0)), expected = losses(alone);
    ASSERT_EQ(actual.size(), size_t(config_.steps));
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5) << i;
  }
}

TEST_F(WorldTest, TheFirstRankAloneWrites) {
  EXPECT_EQ(run(make_ranks()), (std::vector{0, 0}));
  EXPECT_EQ(list_checkpoints(folder_of(0)).size(), 3u);  // after 3, 6 and 8 steps
  EXPECT_TRUE(fs::is_empty(folder_of(1)));
  for (const auto& event : read_run_log(folder_of(0) / kLogFile)) {
    if (event["event"] != "step") continue;
    EXPECT_GT(event["tokens_per_second"], 0);
  }
}

TEST_F(WorldTest, RanksGoOnFromTheCheckpointOfTheFirst) {
  const auto whole = make_ranks();
  EXPECT_EQ(run(whole), (std::vector{0, 0}));
  const fs::path kept = folder_ / "kept";
  fs::create_directories(kept);
  fs::copy(folder_of(0) / "step-00000003", kept / "step-00000003", fs::copy_options::recursive);
  const auto parts = make_ranks();
  for (const auto& trainer : parts) trainer->restore(kept / "step-00000003");
  EXPECT_EQ(parts[1]->step(), 3);
  EXPECT_EQ(run(parts), (std::vector{0, 0}));
  for (const auto& trainer : parts) expect_same_weights(*trainer, *whole[0], 0);
}

TEST_F(WorldTest, ASignalOnOneRankStopsAll) {
  const auto ranks = make_ranks();
  // In each step a rank is asked for its signal, and then whether its output is broken.
  worlds_[1]->answer(
      [questions = 0](int64_t number) mutable { return questions++ == 2 * 4 ? SIGTERM : number; });
  EXPECT_EQ(run(ranks), (std::vector{SIGTERM, SIGTERM}));
  for (const auto& trainer : ranks) EXPECT_EQ(trainer->step(), 4);
  EXPECT_EQ(step_of(list_checkpoints(folder_of(0)).back()), 4);
  EXPECT_TRUE(fs::is_empty(folder_of(1)));
}

TEST_F(WorldTest, MinutesAreThoseOfTheFirstRank) {
  config_.steps = 0;
  config_.minutes = 0.02;
  const auto ranks = make_ranks();
  EXPECT_EQ(run(ranks), (std::vector{0, 0}));
  EXPECT_GT(ranks[0]->step(), 0);
  EXPECT_EQ(ranks[0]->step(), ranks[1]->step());
  expect_same_weights(*ranks[0], *ranks[1], 0);  // so learning rates were the same
}

TEST_F(WorldTest, AProcessByItselfHearsItself) {
  World world;
  EXPECT_TRUE(world.is_writer());
  EXPECT_EQ(world.size(), 1);
  EXPECT_EQ(world.largest(3), 3);
  EXPECT_TRUE(world.any(true));
  EXPECT_FALSE(world.any(false));
  EXPECT_EQ(world.of_first(2.5), 2.5);
}

}  // namespace
}  // namespace pararnn::train
