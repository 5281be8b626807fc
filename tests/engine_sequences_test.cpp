// Sequences packed in one row, and flags that reset the state: each is as if it were alone,
// whatever the plan, and nothing goes over a boundary.
#include "pararnn/sequences.hpp"

#include <gtest/gtest.h>

#include "engine_test_support.hpp"
#include "sequences_test_support.hpp"

namespace pararnn::test {
namespace {

constexpr const char* kWays[] = {"sequential", "speculative", "newton"};

TEST(Sequences, AreFoundByTheirSteps) {
  const std::vector<int> offsets = {0, 0, 3, 3, 3, 8, 8};
  const Sequences s{offsets.data(), 6, nullptr};
  const int expected[] = {1, 1, 1, 4, 4, 4, 4, 4};
  for (int t = 0; t < 8; ++t) EXPECT_EQ(sequence_at(offsets.data(), 6, t), expected[t]) << t;
  EXPECT_EQ(sequence_after(s, 1, 3), 4);
  EXPECT_EQ(sequence_before(s, 4, 3), 1);
  const BlockStarts block = starts_of_block<4>(s, 8, 0, 0, 1);
  EXPECT_EQ(block.bits, 0b01001u);
  EXPECT_EQ(block.sequence, 1);
  EXPECT_EQ(starts_of_block<4>(s, 8, 0, 4, 4).bits, 0b10000u);  // the end of the row
  EXPECT_EQ(starts_of_block<4>(s, 8, 0, 4, 4).sequence, 4);
}

TEST(Sequences, AreFoundAmongAnyNumberOfThem) {
  std::mt19937 generator(2);
  for (const std::int64_t steps : {1, 7, 8, 9, 63, 64, 65, 500, 5000}) {
    for (const double mean : {1.0, 20.0}) {
      const std::vector<int> offsets = random_offsets(steps, mean, generator);
      for (std::int64_t t = 0; t < steps; ++t) {
        const auto behind = std::ranges::upper_bound(offsets, int(t));
        ASSERT_EQ(sequence_at(offsets.data(), std::int64_t(offsets.size()) - 1, t),
                  behind - offsets.begin() - 1);
      }
    }
  }
}

TEST(Sequences, MayHaveAnyOffsetsWithoutHarm) {
  std::mt19937 generator(1);
  for (int i = 0; i < 2000; ++i) {
    std::vector<int> offsets(1 + generator() % 6 + 1);
    for (int& offset : offsets) offset = int(generator()) % 100 - 20;
    const Sequences s{offsets.data(), std::int64_t(offsets.size()) - 1, nullptr};
    for (int t = 0; t < 64; t += 16) {
      const BlockStarts block =
          starts_of_block<16>(s, 64, 0, t, sequence_at(offsets.data(), s.count, t));
      EXPECT_GE(block.sequence, 0);
      EXPECT_LT(block.sequence, s.count);
      EXPECT_LT(block.bits, 1u << 17);
      EXPECT_LT(sequence_after(s, block.sequence, t + 3), s.count);
      EXPECT_GE(sequence_before(s, block.sequence, t + 3), 0);
    }
  }
}

template <class T>
class EngineSequences : public testing::Test {};
using Arithmetics = testing::Types<float, double>;
TYPED_TEST_SUITE(EngineSequences, Arithmetics);

TYPED_TEST(EngineSequences, EqualTheLoopOverRandomLengthsPlansAndLayouts) {
  std::mt19937 generator(1);
  const auto pick = [&](auto&&... of) {
    const std::int64_t values[] = {of...};
    return values[generator() % sizeof...(of)];
  };
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (int i = 0; i < 36; ++i) {
      const bool packed = i % 2 == 0;
      const Shape shape{packed ? 1 : pick(1, 2, 3), pick(1, 2, 15, 16, 17, 33, 100, 250),
                        pick(1, 3, 8, 19, 33)};
      const double mean = double(pick(1, 3, 20, 100));
      const Problem<TypeParam> p(
          cell.kernels, shape, 1, double(pick(-4, 0, 2)), generator(),
          packed ? random_offsets(shape.steps, mean, generator) : std::vector<int>{},
          packed ? std::vector<unsigned char>{} : random_reset(shape, mean, generator));
      Running how{kWays[i % 3], pick(0, 16, 32, 48, 96), pick(-1, 0, 16, 64),
                  kLayouts[generator() % 4]};
      how.with_h0 = generator() % 2 == 0;
      SCOPED_TRACE(cell.name + " " + describe(p, how));
      expect_right(cell, p, run(cell.kernels, p, how), how.with_h0);
    }
  }
}

TYPED_TEST(EngineSequences, EqualTheLoopAtAnyWeightsAndGateBiases) {
  std::mt19937 generator(2);
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (const double scale : {0.5, 2.0, 8.0}) {
      for (const double bias : {-8.0, 0.0, 8.0}) {
        for (const char* way : kWays) {
          const Problem<TypeParam> p(cell.kernels, {1, 210, 9}, scale, bias, generator(),
                                     random_offsets(210, 40, generator));
          const Running how{way, 32, 32};
          SCOPED_TRACE(cell.name + " " + describe(p, how));
          expect_right(cell, p, run(cell.kernels, p, how), true);
        }
      }
    }
  }
}

TYPED_TEST(EngineSequences, KeepToThemselvesWhatIsNotFinite) {
  std::mt19937 generator(3);
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (const char* way : kWays) {
      for (const double special : {double(INFINITY), double(NAN)}) {
        for (const bool backward : {false, true}) {
          Problem<TypeParam> p(cell.kernels, {1, 250, 5}, 1, -3, generator(),
                               {0, 40, 40, 97, 150, 160, 192, 250});
          const Running how{way, 32, 16};
          const auto expected = run(cell.kernels, p, {"sequential"});
          spoil(p, 97, 150, special, backward);
          SCOPED_TRACE(cell.name + " " + way + (backward ? " backward" : " forward"));
          expect_same_outside(p, run(cell.kernels, p, how), expected, 3);
        }
      }
    }
  }
}

// Adjoints are compared relative to the largest of their sequence, not to those of a neighbour.
TYPED_TEST(EngineSequences, HaveAdjointsOfTheirOwnScale) {
  std::mt19937 generator(4);
  for (const auto& cell : cells_under_test<TypeParam>()) {
    for (const char* way : kWays) {
      Problem<TypeParam> p(cell.kernels, {1, 256, 5}, 1, -3, generator(), {0, 40, 130, 256});
      for (int i = 0; i < 40 * 5; ++i) p.dy[i] *= TypeParam(1e12);
      SCOPED_TRACE(cell.name + " " + way);
      expect_right(cell, p, run(cell.kernels, p, {way, 32, 16}), true);
    }
  }
}

}  // namespace
}  // namespace pararnn::test
