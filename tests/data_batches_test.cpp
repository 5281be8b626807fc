#include "data/batches.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "base/hash.hpp"
#include "data/permutation.hpp"
#include "data_test_support.hpp"

namespace pararnn::data {
namespace {

/// The row 0, 1, 2, ...: a token tells its place.
class CountingSource : public TokenSource {
 public:
  explicit CountingSource(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  int64_t bytes() const override { return size_; }
  std::string name() const override { return "the counting row"; }

 private:
  void read_checked(int64_t begin, std::span<int32_t> out) const override {
    for (int32_t& token : out) token = static_cast<int32_t>(begin++);
  }
  int64_t size_;
};

BatchSampler sampler_of(int64_t size, int64_t rows, int64_t steps, uint64_t seed) {
  return {std::make_shared<CountingSource>(size), rows, steps, seed};
}

TEST(Permutation, TakesEveryPlaceOnce) {
  Random random(1);
  std::vector<int64_t> sizes = {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 256, 257, 5000};
  for (int i = 0; i < 20; ++i) sizes.push_back(1 + random_below(random, 3000));
  for (const int64_t size : sizes) {
    std::set<int64_t> places;
    const uint64_t key = random();
    for (int64_t i = 0; i < size; ++i) {
      const int64_t place = permute(i, size, key);
      ASSERT_GE(place, 0);
      ASSERT_LT(place, size);
      places.insert(place);
    }
    EXPECT_EQ(std::ssize(places), size);
  }
}

TEST(Permutation, IsEvenOverKeys) {
  // Where index 0 and index 1 go, over many keys, against chi-square with 99 degrees of freedom
  // (mean 99, deviation 14).
  constexpr int64_t kSize = 100, kKeys = 100'000;
  for (const int64_t index : {0, 1}) {
    std::array<double, kSize> counts = {};
    for (uint64_t key = 0; key < kKeys; ++key)
      counts[static_cast<size_t>(permute(index, kSize, key))] += 1;
    double chi_square = 0;
    for (const double count : counts) {
      const double expected = static_cast<double>(kKeys) / kSize;
      chi_square += (count - expected) * (count - expected) / expected;
    }
    EXPECT_LT(chi_square, 99 + 5 * 14);
  }
}

TEST(Permutation, LeavesNoOrderBehind) {
  constexpr int64_t kSize = 10'000;
  double product =
      0;  // the correlation of neighbours' places, of deviation 1/sqrt(size) if there is none
  for (int64_t i = 0; i + 1 < kSize; ++i) {
    const double a = static_cast<double>(permute(i, kSize, 7)) / kSize - 0.5;
    const double b = static_cast<double>(permute(i + 1, kSize, 7)) / kSize - 0.5;
    product += 12 * a * b / kSize;
  }
  EXPECT_LT(std::abs(product), 5.0 / 100);
}

TEST(Batches, TargetsAreTheNextTokens) {
  Random random(2);
  for (int trial = 0; trial < 50; ++trial) {
    const int64_t steps = 1 + random_below(random, 30), rows = 1 + random_below(random, 5);
    const auto sampler = sampler_of(steps + 1 + random_below(random, 500), rows, steps, random());
    const Batch batch = sampler.batch(random_below(random, 1'000'000));
    ASSERT_EQ(std::ssize(batch.inputs), rows * steps);
    ASSERT_EQ(std::ssize(batch.targets), rows * steps);
    for (size_t i = 0; i < batch.inputs.size(); ++i) {
      EXPECT_EQ(batch.targets[i], batch.inputs[i] + 1);
      if (i % static_cast<size_t>(steps) == 0) continue;
      EXPECT_EQ(batch.inputs[i], batch.inputs[i - 1] + 1);
    }
  }
}

TEST(Batches, AnEpochTakesEveryWindowOnceAndNoTokenTwice) {
  Random random(3);
  for (int trial = 0; trial < 100; ++trial) {
    const int64_t steps = 1 + random_below(random, 20), rows = 1 + random_below(random, 7);
    const int64_t size = steps + 1 + random_below(random, 1000);
    const auto sampler = sampler_of(size, rows, steps, random());
    const int64_t windows = sampler.windows();
    EXPECT_GT((windows + 2) * steps, size - 1);  // an epoch leaves out less than two windows

    std::vector<int32_t> begins;  // of the windows in the order of training
    for (int64_t step = 0; step * rows < 3 * windows; ++step) {
      const Batch batch = sampler.batch(step);
      for (int64_t row = 0; row < rows; ++row)
        begins.push_back(batch.inputs[static_cast<size_t>(row * steps)]);
    }
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<int32_t> of_epoch(begins.begin() + epoch * windows,
                                    begins.begin() + (epoch + 1) * windows);
      std::sort(of_epoch.begin(), of_epoch.end());
      for (size_t i = 1; i < of_epoch.size(); ++i) EXPECT_EQ(of_epoch[i] - of_epoch[i - 1], steps);
    }
  }
}

TEST(Batches, EpochsDifferInOrderAndOffset) {
  const auto sampler = sampler_of(100'000, 1, 50, 1);
  std::set<int32_t> offsets, first_windows;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const int32_t begin = sampler.batch(epoch * sampler.windows()).inputs[0];
    offsets.insert(begin % 50);
    first_windows.insert(begin / 50);
  }
  EXPECT_GT(offsets.size(), 10u);
  EXPECT_GT(first_windows.size(), 15u);
}

TEST(Batches, EveryTokenButTheFirstIsATargetInSomeEpoch) {
  for (int64_t size = 6; size < 40; ++size) {
    const auto sampler = sampler_of(size, 2, 5, 3);
    std::set<int32_t> targets;
    for (int64_t step = 0; step < 500; ++step) {
      const Batch batch = sampler.batch(step);
      targets.insert(batch.targets.begin(), batch.targets.end());
    }
    EXPECT_EQ(std::ssize(targets), size - 1);
  }
}

std::string hash_of_batches(uint64_t seed) {
  const auto sampler = sampler_of(12'345, 4, 17, seed);
  uint64_t hash = 0;
  for (int64_t step = 0; step < 100; ++step) {
    const Batch batch = sampler.batch(step);
    hash = hash_bytes({reinterpret_cast<const char*>(batch.inputs.data()), 4 * batch.inputs.size()},
                      hash);
  }
  return std::to_string(hash);
}

TEST(BatchesDeathTest, AreTheSameInAnotherProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // starts this program anew
  for (const uint64_t seed : {1, 2}) {
    EXPECT_EXIT(
        {
          std::fputs(hash_of_batches(seed).c_str(), stderr);
          std::exit(0);
        },
        testing::ExitedWithCode(0), "^" + hash_of_batches(seed) + "$");
  }
  EXPECT_NE(hash_of_batches(1), hash_of_batches(2));
}

TEST(Batches, AreTheSameInAnyOrderOfSteps) {
  const auto sampler = sampler_of(5000, 3, 11, 9);
  const Batch early = sampler.batch(5);
  sampler.batch(1000);
  EXPECT_EQ(sampler.batch(5).inputs, early.inputs);
}

/// A row of which everything from a place on is damaged.
class DamagedSource : public CountingSource {
 public:
  DamagedSource(int64_t size, int64_t whole) : CountingSource(size), whole_(whole) {}

 private:
  void read_checked(int64_t begin, std::span<int32_t> out) const override {
    require(begin < whole_, "the row is damaged at {}", begin);
    std::fill(out.begin(), out.end(), 0);
  }
  int64_t whole_;
};

TEST(Batches, PreparedAheadAreThoseOfTheSampler) {
  const auto sampler = sampler_of(5000, 3, 11, 9);
  PrefetchedBatches prefetched(sampler);
  for (const int64_t step : {0, 1, 2, 3, 10, 11, 4, 4, 5}) {
    const Batch batch = prefetched.batch(step), expected = sampler.batch(step);
    EXPECT_EQ(batch.inputs, expected.inputs) << step;
    EXPECT_EQ(batch.targets, expected.targets) << step;
  }
}

TEST(Batches, PreparedAheadFailWhereTheyAreAskedFor) {
  const BatchSampler sampler(std::make_shared<DamagedSource>(1000, 500), 1, 5, 1);
  const auto fails = [&](const auto& batch) {
    try {
      batch();
      return false;
    } catch (const Error&) {
      return true;
    }
  };
  PrefetchedBatches prefetched(sampler);
  int failed = 0;
  for (int64_t step = 0; step < 40; ++step) {
    const bool expected = fails([&] { sampler.batch(step); });
    EXPECT_EQ(fails([&] { prefetched.batch(step); }), expected) << step;
    failed += expected;
  }
  EXPECT_GT(failed, 0);
  EXPECT_LT(failed, 40);
}

TEST(Batches, ATooShortTextOrAnEmptyBatchIsAnError) {
  for (const int64_t size : {0, 1, 10}) {
    const std::string words = error_of([&] { sampler_of(size, 1, 10, 0); });
    EXPECT_NE(words.find("the counting row has " + std::to_string(size) + " tokens"),
              std::string::npos)
        << words;
  }
  EXPECT_EQ(sampler_of(11, 1, 10, 0).batch(12).inputs.size(), 10u);
  error_of([&] { sampler_of(100, 0, 10, 0); });
  error_of([&] { sampler_of(100, 1, 0, 0); });
}

}  // namespace
}  // namespace pararnn::data
