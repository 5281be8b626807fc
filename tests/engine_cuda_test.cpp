// The GPU's scan on the host (engine_cuda_support.hpp): whatever the shape, plan, layout, storage
// and weights, the result is that of the plain loop, and what was corrected and repaired is
// counted.
#include <gtest/gtest.h>

#include "engine_test_support.hpp"
#include "scan_kernel_list.hpp"

// Redefines names of the C++ library, so it comes last.
#include "engine_cuda_support.hpp"

namespace pararnn::test {
namespace {

using cuda::BFloat16;
using cuda::Float16;

template <class Case>
class EngineCuda : public testing::Test {};
#if defined(__SANITIZE_ADDRESS__)
// Instrumented kernels take minutes to compile: one cell on one storage stands for them.
using Wide = testing::Types<On<Gru, float>>;
#else
using Wide = testing::Types<On<Elman, double>, On<Gru, float>, On<Lstm, float>, On<Slstm, float>>;
#endif
TYPED_TEST_SUITE(EngineCuda, Wide);

constexpr const char* kWays[] = {"sequential", "speculative", "newton"};

template <class On, class T = typename On::T>
Problem<T> problem_for(const Shape& shape, double weight_scale, double gate_bias, unsigned seed) {
  return {cell_under_test<T>(kNameOf<typename On::C>).kernels, shape, weight_scale, gate_bias,
          seed};
}
template <class On, class T = typename On::T>
void expect_right(const Problem<T>& p, const Running& how, int multiprocessors = 2) {
  SCOPED_TRACE(std::string("B") + std::to_string(p.shape.batch) + " T" +
               std::to_string(p.shape.steps) + " D" + std::to_string(p.shape.channels) + " " +
               how.way + " chunk " + std::to_string(how.chunk) + " burn-in " +
               std::to_string(how.burn_in));
  expect_right(cell_under_test<T>(kNameOf<typename On::C>), p,
               run_on_fibers<On>(p, how, multiprocessors), how.with_h0);
}

TYPED_TEST(EngineCuda, EqualsTheLoopOverRandomShapesPlansAndLayouts) {
  std::mt19937 generator(1);
  const auto pick = [&](auto&&... of) {
    const std::int64_t values[] = {of...};
    return values[generator() % sizeof...(of)];
  };
  for (int i = 0; i < 36; ++i) {
    const Shape shape{pick(1, 2, 3), pick(1, 2, 7, 8, 9, 16, 17, 33, 100, 250),
                      pick(1, 3, 8, 19, 33, 64, 70)};
    const auto p = problem_for<TypeParam>(shape, 1, double(pick(-4, -1, 0, 2)), generator());
    Running how{kWays[i % 3], pick(0, 16, 32, 48, 96), pick(-1, 0, 16, 64),
                kLayouts[generator() % 4]};
    how.with_h0 = generator() % 2 == 0;
    expect_right<TypeParam>(p, how, int(pick(1, 2, 5)));
  }
}

TYPED_TEST(EngineCuda, EqualsTheLoopAtAnyWeightsAndGateBiases) {
  unsigned seed = 100;
  for (const double scale : {0.5, 2.0, 8.0}) {
    for (const double bias : {-8.0, 0.0, 8.0}) {
      for (const char* way : kWays) {
        SCOPED_TRACE(std::string("weights ") + std::to_string(scale) + " gate bias " +
                     std::to_string(bias));
        expect_right<TypeParam>(problem_for<TypeParam>({1, 210, 9}, scale, bias, ++seed),
                                {way, 32, 32});
      }
    }
  }
}

// More chunks than a warp has threads, of which each then composes several.
TYPED_TEST(EngineCuda, EqualsTheLoopOverManyChunks) {
  for (const double bias : {-5.0, 5.0}) {
    for (const char* way : {"speculative", "newton"}) {
      expect_right<TypeParam>(problem_for<TypeParam>({1, 1100, 3}, 1, bias, 3), {way, 16, 16});
    }
  }
}

TYPED_TEST(EngineCuda, NotANumberAndInfinityAreWhereTheLoopHasThem) {
  using T = typename TypeParam::T;
  for (const double special : {double(INFINITY), -double(INFINITY), double(NAN)}) {
    for (const char* way : kWays) {
      SCOPED_TRACE(std::string(way) + " " + std::to_string(special));
      auto p = problem_for<TypeParam>({1, 150, 6}, 1, 0, 9);
      p.u[70 * p.U * 6 + 2] = T(special);  // step 70, first input, channel 2
      std::vector<T> y(p.dy.size()), hT(p.dhT.size());
      cell_under_test<T>(kNameOf<typename TypeParam::C>)
          .loop(p.shape, p.u.data(), p.w.data(), p.h0.data(), y.data(), hT.data(), nullptr, {});
      const auto r = run_on_fibers<TypeParam>(p, {way, 32, 16});
      expect_same_kind(r.y, y);
      expect_same_kind(r.hT, hT);
    }
  }
}

TYPED_TEST(EngineCuda, DecodingIsAScanOfOneStep) {
  using T = typename TypeParam::T;
  for (const std::int64_t batch : {1, 37, 150}) {
    const auto p = problem_for<TypeParam>({batch, 1, 33}, 1, 0, 4);
    std::vector<T> y(p.dy.size()), hT(p.dhT.size());
    cell_under_test<T>(kNameOf<typename TypeParam::C>)
        .loop(p.shape, p.u.data(), p.w.data(), p.h0.data(), y.data(), hT.data(), nullptr, {});
    std::vector<Kernel> kernels;
    const auto r = run_on_fibers<TypeParam>(p, {}, 1, &kernels);
    EXPECT_EQ(kernels, std::vector<Kernel>{{Kernel::kDecodeStep}});
    expect_same_kind(r.y, y);
    expect_same_kind(r.hT, hT);
  }
}

TEST(Fibers, MeetAndExchangeAsThreadsOfAGpu) {
  std::vector<int> sums(3), before(3 * 64);
  fibers::machine.run({.blocks = 3}, [&] {
    using Sum = int;
    PARARNN_SHARED(Sum, sum);
    const int thread = int(threadIdx.x);
    if (thread == 5) sum = 0;
    EXPECT_TRUE(__syncthreads_or(thread == 63));
    sum += thread;
    EXPECT_FALSE(__syncthreads_or(false));
    if (thread == 0) sums[blockIdx.x] = sum;
    before[blockIdx.x * 64 + thread] = __shfl_up_sync(~0u, thread, 3);
  });
  EXPECT_EQ(sums, std::vector<int>(3, 63 * 64 / 2));
  for (int i = 0; i < 3 * 64; ++i) EXPECT_EQ(before[i], i % 32 < 3 ? i % 64 : i % 64 - 3);
}

TEST(Fibers, NoticeThatTheyWaitForEver) {
  int written = 0;
  EXPECT_THROW(fibers::machine.run({.blocks = 1},
                                   [&] {
                                     if (threadIdx.x > 0) __syncthreads();
                                     while (written == 0) cuda::let_others_run();
                                   }),
               std::runtime_error);
}

/// On the CPU and on the GPU, which are to have done the same.
template <class C>
Statistics expect_same_statistics(const Problem<float>& p, Running how, bool forward) {
  how.executor.threads = 100;  // more than failing columns fill: none is walked without correction
  const auto cpu = run(cell_under_test<float>(kNameOf<C>).kernels, p, how);
  const auto gpu = run_on_fibers<On<C, float>>(p, how);
  const Statistics &a = forward ? cpu.forward : cpu.backward,
                   &b = forward ? gpu.forward : gpu.backward;
  EXPECT_EQ(a.plan, b.plan);
  EXPECT_EQ(a.columns, b.columns);
  EXPECT_EQ(a.columns_corrected, b.columns_corrected);
  EXPECT_EQ(a.columns_repaired, b.columns_repaired);
  EXPECT_EQ(a.newton_iterations, b.newton_iterations);
  for (const double mismatch : {a.largest_mismatch, b.largest_mismatch}) {
    EXPECT_LE(mismatch, kDefaultTolerance<float>);
  }
  return b;
}

TEST(EngineCudaStatistics, NothingIsCorrectedWhereACellForgets) {
  const auto p = problem_for<On<Gru, float>>({2, 400, 5}, 1, 3, 10);
  for (const bool forward : {true, false}) {
    for (const char* way : kWays) {
      const Statistics s = expect_same_statistics<Gru>(p, {way, 64, 64}, forward);
      EXPECT_EQ(s.columns, 10);
      EXPECT_EQ(s.columns_corrected, 0);
      EXPECT_EQ(s.newton_iterations, way == std::string("newton") ? 1 : 0);
    }
  }
}

TEST(EngineCudaStatistics, LongMemoryIsCorrectedAndNotRepaired) {
  const auto p = problem_for<On<Gru, float>>({1, 800, 3}, 0.5, -5, 10);
  for (const bool forward : {true, false}) {
    const auto s = expect_same_statistics<Gru>(p, {"speculative", 32, 16}, forward);
    EXPECT_EQ(s.columns_corrected, 3);
    EXPECT_GT(s.newton_iterations, 0);
    EXPECT_EQ(s.columns_repaired, 0);
    EXPECT_GT(s.largest_mismatch, 0);
  }
}

TEST(EngineCudaStatistics, NotANumberEqualsItself) {
  auto p = problem_for<On<Gru, float>>({1, 800, 3}, 1, 3, 10);
  for (std::int64_t t = 0; t < 800; ++t) p.u[t * p.U * 3 + 1] = NAN;  // channel 1
  const Statistics s = expect_same_statistics<Gru>(p, {"speculative", 32, 32}, true);
  EXPECT_EQ(s.columns_corrected, 0);
  EXPECT_EQ(s.largest_mismatch, 0);
}

#if !defined(__SANITIZE_ADDRESS__)
template <class Case>
class EngineCudaHalf : public testing::Test {};
using Half = testing::Types<On<Gru, BFloat16>, On<Lstm, Float16>>;
TYPED_TEST_SUITE(EngineCudaHalf, Half);

// Also a wide thread, and two narrow ones that share a load; and a single channel, and an odd one.
TYPED_TEST(EngineCudaHalf, IsTheRoundingOfSingleStorage) {
  using C = typename TypeParam::C;
  for (const std::int64_t channels : {1, 20, 33, 128}) {
    for (const char* way : kWays) {
      for (const Layout layout : {kLayouts[channels % 4], kLayouts[channels % 3]}) {
        SCOPED_TRACE(std::string("D") + std::to_string(channels) + " " + way);
        const auto p = problem_for<TypeParam>({1, 75, channels}, 1, 0, 8);
        const Running how{way, 32, 16, layout};
        const auto single = run_on_fibers<On<C, float>>(p, how);
        const auto half = run_on_fibers<TypeParam>(p, how);
        const cpu::Storage storage = kStorageAs<typename TypeParam::Storage>;
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

TYPED_TEST(EngineCudaHalf, EveryKernelIsCompiledHere) {
  using C = typename TypeParam::C;
  using Here = Functions<C, typename TypeParam::Storage, false>;
  const cuda::CellSizes cell{C::kState, C::kParams, sizeof(typename TypeParam::T)};
  for (const Kernel& kernel : cuda::every_kernel(cell, true, false)) {
    EXPECT_TRUE(Here::of(kernel, cuda::ForwardProblem{}) ||
                Here::of(kernel, cuda::BackwardProblem{}))
        << cuda::kernel_expression(kernel, "C", "Storage");
  }
}

TEST(EngineCudaStatistics, ASecondComponentIsCorrectedAlike) {
  const auto p = problem_for<On<Lstm, float>>({1, 800, 3}, 0.25, 4, 10);
  const Statistics s = expect_same_statistics<Lstm>(p, {"speculative", 32, 16}, true);
  EXPECT_EQ(s.columns_corrected, 3);
  EXPECT_GT(s.newton_iterations, 1);
  EXPECT_EQ(s.columns_repaired, 0);
}

// At rest an Elman cell of large weights multiplies each step by them: eight steps are infinity,
// and infinity times no gradient is not a number.
TEST(EngineCudaSections, MapsThatOverflowLeaveNoTrace) {
  auto p = problem_for<On<Elman, float>>({1, 300, 40}, 1, 0, 3);
  std::ranges::fill(p.w, 1e6f);
  for (auto* zeros : {&p.u, &p.h0, &p.dy, &p.dhT}) std::ranges::fill(*zeros, 0.0f);
  for (const int multiprocessors : {1, 2, 5}) {
    for (const char* way : kWays) {
      const auto r = run_on_fibers<On<Elman, float>>(p, {way, 32, 16}, multiprocessors);
      EXPECT_EQ(r.du, p.u);
      EXPECT_EQ(r.dh0, p.dhT);
      EXPECT_EQ(r.dw, std::vector<float>(r.dw.size()));
    }
  }
}

TEST(EngineCudaStatistics, ChaoticColumnsAreRepaired) {
  const auto p = problem_for<On<Elman, float>>({1, 800, 12}, 8, 0, 3);
  const Statistics s = expect_same_statistics<Elman>(p, {"speculative", 32, 16}, true);
  EXPECT_GT(s.columns_repaired, 0);
  EXPECT_EQ(s.newton_iterations, kMaxNewtonIterations);
}

#endif

}  // namespace
}  // namespace pararnn::test
