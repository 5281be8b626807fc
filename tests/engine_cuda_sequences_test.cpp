// Sequences packed in one row, and flags that reset the state, by the GPU's kernels on the host
// (engine_cuda_support.hpp): each sequence is as if it were alone.
#include <gtest/gtest.h>

#include "engine_test_support.hpp"
#include "scan_kernel_list.hpp"
#include "sequences_test_support.hpp"

// Redefines names of the C++ library, so it comes last.
#include "engine_cuda_support.hpp"

namespace pararnn::test {
namespace {

template <class Case>
class EngineCudaSequences : public testing::Test {};
using Cases = testing::Types<On<Gru, float>, On<Lstm, cuda::BFloat16>, On<Slstm, double>>;
TYPED_TEST_SUITE(EngineCudaSequences, Cases);

constexpr const char* kWays[] = {"sequential", "speculative", "newton"};

template <class On, class T = typename On::T>
void expect_right(const Problem<T>& p, Running how, int multiprocessors = 2) {
  constexpr bool kSameStorage = sizeof(typename On::Storage) == sizeof(T);
  // The planner's chunks depend on the storage, and what is compared below on the chunks.
  if (!kSameStorage && how.chunk == 0) how.chunk = 80;
  SCOPED_TRACE(describe(p, how));
  const auto r = run_on_fibers<On, true>(p, how, multiprocessors);
  if constexpr (kSameStorage) {
    expect_right(cell_under_test<T>(kNameOf<typename On::C>), p, r, how.with_h0);
  } else {
    // What is stored is rounded; hence against the same kernels on numbers that are not.
    using Single = test::On<typename On::C, T>;
    const auto single = run_on_fibers<Single, true>(p, how, multiprocessors);
    expect_right(cell_under_test<T>(kNameOf<typename On::C>), p, single, how.with_h0);
    const cpu::Storage storage = kStorageAs<typename On::Storage>;
    EXPECT_EQ(r.y, rounded(single.y, storage));
    EXPECT_EQ(r.du, rounded(single.du, storage));
    EXPECT_EQ(r.hT, single.hT);
    EXPECT_EQ(r.dh0, single.dh0);
    EXPECT_EQ(r.dw, single.dw);
  }
}

template <class On, class T = typename On::T>
Problem<T> problem_for(const Shape& shape, double weight_scale, double gate_bias, unsigned seed,
                       std::vector<int> offsets, std::vector<unsigned char> reset = {}) {
  return {cell_under_test<T>(kNameOf<typename On::C>).kernels,
          shape,
          weight_scale,
          gate_bias,
          seed,
          std::move(offsets),
          std::move(reset)};
}

TYPED_TEST(EngineCudaSequences, EqualTheLoopOverRandomLengthsPlansAndLayouts) {
  std::mt19937 generator(1);
  const auto pick = [&](auto&&... of) {
    const std::int64_t values[] = {of...};
    return values[generator() % sizeof...(of)];
  };
  for (int i = 0; i < 48; ++i) {
    const bool packed = i % 2 == 0;
    const Shape shape{packed ? 1 : pick(1, 2, 3), pick(1, 2, 7, 8, 9, 16, 17, 33, 100, 250),
                      pick(1, 3, 8, 19, 33, 64, 70)};
    const double mean = double(pick(1, 3, 20, 100));
    const auto p = problem_for<TypeParam>(
        shape, 1, double(pick(-4, 0, 2)), generator(),
        packed ? random_offsets(shape.steps, mean, generator) : std::vector<int>{},
        packed ? std::vector<unsigned char>{} : random_reset(shape, mean, generator));
    Running how{kWays[i % 3], pick(0, 16, 32, 48, 96), pick(-1, 0, 16, 64),
                kLayouts[generator() % 4]};
    how.with_h0 = generator() % 2 == 0;
    expect_right<TypeParam>(p, how, int(pick(1, 2, 5)));
  }
}

TYPED_TEST(EngineCudaSequences, EqualTheLoopAtAnyWeightsAndGateBiases) {
  std::mt19937 generator(2);
  for (const double scale : {0.5, 2.0, 8.0}) {
    for (const double bias : {-8.0, 0.0, 8.0}) {
      for (const char* way : kWays) {
        expect_right<TypeParam>(problem_for<TypeParam>({1, 210, 9}, scale, bias, generator(),
                                                       random_offsets(210, 40, generator)),
                                {way, 32, 32});
      }
    }
  }
}

TYPED_TEST(EngineCudaSequences, KeepToThemselvesWhatIsNotFinite) {
  using Single = On<typename TypeParam::C, typename TypeParam::T>;
  for (const char* way : kWays) {
    for (const double special : {double(INFINITY), double(NAN)}) {
      for (const bool backward : {false, true}) {
        auto p = problem_for<Single>({1, 250, 5}, 1, -3, 7, {0, 40, 40, 97, 150, 160, 192, 250});
        const auto expected = run_on_fibers<Single, true>(p, {"sequential"});
        spoil(p, 97, 150, special, backward);
        SCOPED_TRACE(std::string(way) + (backward ? " backward" : " forward"));
        expect_same_outside(p, run_on_fibers<Single, true>(p, {way, 32, 16}), expected, 3);
      }
    }
  }
}

TYPED_TEST(EngineCudaSequences, HaveAdjointsOfTheirOwnScale) {
  using Single = On<typename TypeParam::C, typename TypeParam::T>;
  for (const char* way : kWays) {
    auto p = problem_for<Single>({1, 256, 5}, 1, -3, 4, {0, 40, 130, 256});
    for (int i = 0; i < 40 * 5; ++i) p.dy[i] *= typename TypeParam::T(1e12);
    expect_right<Single>(p, {way, 32, 16});
  }
}

TYPED_TEST(EngineCudaSequences, WithWrongOffsetsAreNotNumbers) {
  using Single = On<typename TypeParam::C, typename TypeParam::T>;
  for (const std::vector<int>& offsets :
       {std::vector<int>{0, 50, 30, 100}, {5, 50, 100}, {0, 50, 99}, {0, 200, 100}, {0, -7, 100}}) {
    for (const char* way : kWays) {
      const auto p = problem_for<Single>({1, 100, 5}, 1, -3, 4, offsets);
      const auto r = run_on_fibers<Single, true>(p, {way, 32, 16});
      for (const auto y : r.y) ASSERT_TRUE(std::isnan(y));
      for (const auto hT : r.hT) ASSERT_TRUE(std::isnan(hT));
      for (const auto du : r.du) ASSERT_TRUE(std::isnan(du));
      for (const auto dw : r.dw) ASSERT_TRUE(std::isnan(dw));
      for (const auto dh0 : r.dh0) ASSERT_TRUE(std::isnan(dh0));
    }
  }
}

TYPED_TEST(EngineCudaSequences, EveryKernelIsCompiledHere) {
  using Here = Functions<typename TypeParam::C, typename TypeParam::Storage, true>;
  using C = typename TypeParam::C;
  const cuda::CellSizes cell{C::kState, C::kParams, sizeof(typename TypeParam::T)};
  const bool pairs = sizeof(typename TypeParam::Storage) == 2;
  for (const Kernel& kernel : cuda::every_kernel(cell, pairs, true)) {
    EXPECT_TRUE(Here::of(kernel, cuda::ForwardProblem{}) ||
                Here::of(kernel, cuda::BackwardProblem{}))
        << cuda::kernel_expression(kernel, "C", "Storage");
  }
}

}  // namespace
}  // namespace pararnn::test
