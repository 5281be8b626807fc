// The operators on a GPU: equal to the plain loop for every cell, plan and dtype; right for any
// strides, lengths and sizes; repeatable, and capturable in a graph. Skipped without a GPU.
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/cuda.h>
#include <torch/utils.h>

#include <set>

#include "ops_test_support.hpp"
#include "pararnn/cuda/problem.hpp"

namespace pararnn {
namespace {

namespace CachingAllocator = c10::cuda::CUDACachingAllocator;

class OpsScanCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
  }
};

Tensor on_gpu(const Tensor& t) { return t.to(torch::kCUDA); }
Arguments on_gpu(const Arguments& a) { return {on_gpu(a.u), on_gpu(a.w), on_gpu(a.h0)}; }

Results on_cpu(const Results& r) {
  return {r.y.cpu(), r.hT.cpu(), r.du.cpu(), r.dw.cpu(), r.dh0.cpu()};
}

/// On the GPU, with results on the CPU.
Results run_there(const CellDefinition& cell, const Arguments& a, const Tensor& dy,
                  const Tensor& dhT, const ScanOptions& options = {}) {
  return on_cpu(run(cell, on_gpu(a), on_gpu(dy), on_gpu(dhT), options));
}

TEST_F(OpsScanCuda, EqualsTheLoopForEveryCellPlanAndArithmetic) {
  expect_the_loop([](const auto&... arguments) { return run_there(arguments...); }, 5e-5, 1e-10);
}

// The arithmetic is the same but for the products that a compiler fuses with a sum.
TEST_F(OpsScanCuda, HalfTensorsGiveTheRoundingOfSingleOnes) {
  uint64_t seed = 100;
  for (const CellDefinition& cell : built_in_cells()) {
    for (const auto type : {torch::kBFloat16, torch::kFloat16}) {
      for (const int64_t D : {33, 34}) {  // one and two channels a thread
        const Arguments a = random_arguments(cell, 2, 300, D, type, ++seed);
        const Tensor dy = torch::randn({2, 300, D}).to(type), dhT = torch::randn_like(a.h0);
        for (const ScanOptions& options :
             {ScanOptions{"sequential"}, ScanOptions{"speculative", 64, 32},
              ScanOptions{"newton", 64, 32}}) {
          SCOPED_TRACE(
              fmt::format("{} {} D{} {}", cell.name, c10::toString(type), D, options.plan));
          const Results half = run_there(cell, a, dy, dhT, options);
          Arguments wide = a;
          wide.u = a.u.to(torch::kFloat32);
          const Results single = run_there(cell, wide, dy.to(torch::kFloat32), dhT, options);
          expect_close(half, single, type == torch::kBFloat16 ? 1.0 / 256 : 1.0 / 1024);
        }
      }
    }
  }
}

TEST_F(OpsScanCuda, TakesAnyStridesAndHeads) {
  const CellDefinition& cell = find_cell("lstm");
  const int64_t B = 3, T = 130, D = 24, heads = 4;
  const Arguments a = random_arguments(cell, B, T, D, torch::kFloat32, 7);
  const Tensor dy = torch::randn({B, T, D}), dhT = torch::randn_like(a.h0);
  const ScanOptions options{"speculative", 32, 32};
  const Results expected = run_there(cell, a, dy, dhT, options);
  const Arguments there = on_gpu(a);
  const auto result_of = [&](const Tensor& u, const Tensor& gradient) {
    Arguments other = there;
    other.u = u;
    return on_cpu(run(cell, other, gradient, on_gpu(dhT), options));
  };
  const Tensor time_first = there.u.transpose(0, 1).contiguous().transpose(0, 1);
  expect_equal(result_of(time_first, on_gpu(dy)), expected);
  const Tensor channels_apart = there.u.transpose(2, 3).contiguous().transpose(2, 3);
  expect_equal(result_of(channels_apart, on_gpu(dy)), expected);
  const Tensor wider = torch::cat({there.u, there.u}, 3).narrow(3, D, D);
  expect_equal(result_of(wider, on_gpu(torch::cat({dy, dy}, 2)).narrow(2, D, D)), expected);

  const Tensor in_heads =
      there.u.reshape({B, T, cell.inputs, heads, D / heads}).permute({0, 1, 3, 2, 4}).contiguous();
  Results split = result_of(in_heads, on_gpu(dy));
  split.du = split.du.permute({0, 1, 3, 2, 4}).reshape({B, T, cell.inputs, D});
  expect_equal(split, expected);
}

TEST_F(OpsScanCuda, GradientsEqualFiniteDifferences) {
  for (const CellDefinition& cell : built_in_cells()) {
    const Arguments a = on_gpu(random_arguments(cell, 2, 40, 5, torch::kFloat64, 11));
    const Tensor dy = torch::randn({2, 40, 5}, a.w.options()), dhT = torch::randn_like(a.h0);
    const ScanOptions options{"newton", 16};
    const Results g = run(cell, a, dy, dhT, options);
    const Arguments direction{torch::randn_like(a.u), torch::randn_like(a.w),
                              torch::randn_like(a.h0)};
    const auto value_at = [&](double x) {
      const auto [y, hT] = scan(a.u + x * direction.u, a.w + x * direction.w,
                                a.h0 + x * direction.h0, std::string(cell.name), options);
      return ((y * dy).sum() + (hT * dhT).sum()).item<double>();
    };
    const double x = 1e-5, difference = (value_at(x) - value_at(-x)) / (2 * x);
    const double derivative =
        ((g.du * direction.u).sum() + (g.dw * direction.w).sum() + (g.dh0 * direction.h0).sum())
            .item<double>();
    EXPECT_NEAR(derivative, difference, 1e-6 * (1 + std::abs(difference))) << cell.name;
  }
}

TEST_F(OpsScanCuda, StepsAddUpToTheScan) {
  for (const CellDefinition& cell : built_in_cells()) {
    for (const auto& [B, D] : {std::pair<int64_t, int64_t>{1, 33}, {70, 34}, {9, 512}}) {
      for (const auto type : {torch::kBFloat16, torch::kFloat32, torch::kFloat64}) {
        SCOPED_TRACE(fmt::format("{} B{} D{} {}", cell.name, B, D, c10::toString(type)));
        const Arguments a = on_gpu(random_arguments(cell, B, 5, D, type, 3));
        const std::string name(cell.name);
        const double rounding = type == torch::kFloat64   ? 1e-14
                                : type == torch::kFloat32 ? 1e-6
                                                          : 1.0 / 256;
        const auto [y, hT] = scan(a.u, a.w, a.h0, name, {"sequential"});
        Tensor h = a.h0;
        for (int64_t t = 0; t < 5; ++t) {
          const auto [out, next] = step(a.u.select(1, t), a.w, h, name);
          expect_close(out, y.select(1, t), rounding, "y");
          h = next;
        }
        expect_close(h, hT, 1e-14 + 1e-6 * (type != torch::kFloat64), "hT");
      }
    }
  }
}

TEST_F(OpsScanCuda, TensorsMayBeginAnywhere) {
  // Contiguous, but the first number lies between two pairs of channels.
  const auto moved = [](const Tensor& t, int64_t by) {
    return torch::cat({torch::zeros({by}, t.options()), t.flatten()})
        .narrow(0, by, t.numel())
        .view(t.sizes());
  };
  for (const CellDefinition& cell : built_in_cells()) {
    const std::string name(cell.name);
    for (const auto& [B, T, D] : {std::array<int64_t, 3>{3, 100, 34}, {64, 24, 1024}}) {
      for (const auto type : {torch::kBFloat16, torch::kFloat16, torch::kFloat32}) {
        SCOPED_TRACE(fmt::format("{} B{} D{} {}", cell.name, B, D, c10::toString(type)));
        const Arguments a = on_gpu(random_arguments(cell, B, T, D, type, 6));
        const Tensor dy = torch::randn({B, T, D}, a.u.options()), dhT = torch::randn_like(a.h0);
        const Results expected = on_cpu(run(cell, a, dy, dhT, {"sequential"}));
        for (int which = 0; which < 32; which += which < 16 ? 1 : 15) {  // one bit a tensor
          const auto place = [&](const Tensor& t, int bit) {
            return which >> bit & 1 ? moved(t, 1) : t;
          };
          const Arguments b{place(a.u, 0), place(a.w, 1), place(a.h0, 2)};
          const Results got = on_cpu(run(cell, b, place(dy, 3), place(dhT, 4), {"sequential"}));
          const double rounding = type == torch::kFloat32 ? 1e-5 : 1.0 / 128;
          expect_close(got, expected, rounding);
          const Tensor first = b.u.select(1, 0);
          const Tensor out = std::get<0>(step(first, b.w, b.h0, name));
          expect_close(out.cpu(), expected.y.select(1, 0), rounding, "step");
        }
      }
    }
  }
}

TEST_F(OpsScanCuda, WeightsOfTwoBytesHavePlansOfTheirOwn) {
  // Two layers of one shape: one forgets, the other is chaotic, so that chunks only cost it time.
  // What the last calls of each ran must not change with the other's.
  const CellDefinition& cell = find_cell("elman");
  std::vector<Arguments> layers;
  for (const double weights : {0.5, 8.0}) {
    Arguments a = random_arguments(cell, 1, 32768, 64, torch::kBFloat16, 31, weights);
    a.w = a.w.to(torch::kBFloat16);
    layers.push_back(on_gpu(a));
  }
  std::vector<std::set<std::string>> plans(2);
  for (int i = 0; i < 120; ++i) {
    for (size_t layer = 0; layer < 2; ++layer) {
      scan(layers[layer].u, layers[layer].w, layers[layer].h0, "elman");
      const ScanStatistics s = last_scan_statistics().first;
      if (i >= 100) plans[layer].insert(fmt::format("{} {} {}", s.plan, s.chunk, s.burn_in));
    }
  }
  EXPECT_EQ(plans[0].size(), 1u) << testing::PrintToString(plans);
  EXPECT_NE(*plans[0].begin(), *plans[1].begin()) << testing::PrintToString(plans);
}

TEST_F(OpsScanCuda, MorePlacesThanAreRememberedDoNoHarm) {
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = random_arguments(cell, 1, 4096, 16, torch::kFloat32, 32);
  const Arguments there = on_gpu(a);
  for (int64_t i = 0; i < 1500; ++i) {
    const int64_t T = 4096 - i;
    const auto [y, hT] = scan(there.u.slice(1, 0, T), there.w, there.h0, "gru");
    if (i % 100 == 0) {
      const auto [expected, end] = scan(a.u.slice(1, 0, T), a.w, a.h0, "gru", {"sequential"});
      expect_close(y.cpu(), expected, 5e-5, "y");
    }
  }
}

TEST_F(OpsScanCuda, NothingIsLearnedWhereThatIsNotWanted) {
  const CellDefinition& cell = find_cell("gru");
  Arguments a = random_arguments(cell, 1, 16384, 32, torch::kFloat32, 33);
  a.u.select(2, 0) -= 4;
  const Arguments there = on_gpu(a);
  const auto plans = [&](const char* plan) {
    std::set<std::string> plans;
    for (int i = 0; i < 60; ++i) {
      scan(there.u, there.w, there.h0, "gru", {plan});
      const ScanStatistics s = last_scan_statistics().first;
      plans.insert(fmt::format("{} {} {}", s.plan, s.chunk, s.burn_in));
    }
    return plans.size();
  };
  EXPECT_EQ(plans("planner"), 1u);
  at::globalContext().setDeterministicAlgorithms(true, false);
  EXPECT_EQ(plans("auto"), 1u);
  at::globalContext().setDeterministicAlgorithms(false, false);
}

TEST_F(OpsScanCuda, EmptySequencesAndBatches) {
  const CellDefinition& cell = find_cell("gru");
  for (const auto& [B, T] : {std::pair<int64_t, int64_t>{2, 0}, {0, 9}}) {
    const Arguments a = random_arguments(cell, B, T, 4, torch::kFloat32, 5);
    const Results r = run_there(cell, a, torch::zeros({B, T, 4}), torch::ones_like(a.h0));
    EXPECT_TRUE(torch::equal(r.hT, a.h0));
    EXPECT_TRUE(torch::equal(r.dh0, torch::ones_like(a.h0)));
    EXPECT_EQ(r.dw.abs().max().item<float>(), 0);
  }
}

TEST_F(OpsScanCuda, RepeatsBitForBitAndInACapturedGraph) {
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = on_gpu(random_arguments(cell, 2, 2000, 48, torch::kBFloat16, 9, 4));
  const Tensor dy = torch::randn({2, 2000, 48}, a.w.options()).to(torch::kBFloat16);
  const Tensor dhT = torch::randn_like(a.h0);
  for (const char* plan : {"sequential", "speculative", "newton"}) {
    SCOPED_TRACE(plan);
    const ScanOptions options{plan, 128, 64};
    const Results once = on_cpu(run(cell, a, dy, dhT, options));
    expect_equal(on_cpu(run(cell, a, dy, dhT, options)), once);

    const auto stream = c10::cuda::getStreamFromPool();
    const c10::cuda::CUDAStreamGuard on_stream(stream);
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    const Results captured = run(cell, a, dy, dhT, options);
    graph.capture_end();
    for (int i = 0; i < 2; ++i) {
      captured.y.zero_();
      captured.dw.zero_();
      graph.replay();
      stream.synchronize();
      expect_equal(on_cpu(captured), once);
    }
  }
}

TEST_F(OpsScanCuda, StreamsDoNotDisturbEachOther) {
  const CellDefinition& cell = find_cell("lstm");
  const Arguments a = on_gpu(random_arguments(cell, 1, 4096, 64, torch::kFloat32, 10));
  const Tensor dy = torch::randn({1, 4096, 64}, a.w.options()), dhT = torch::randn_like(a.h0);
  const ScanOptions options{"newton", 256};
  const Results expected = on_cpu(run(cell, a, dy, dhT, options));
  torch::cuda::synchronize();
  std::vector<Results> results;
  for (int i = 0; i < 4; ++i) {
    const c10::cuda::CUDAStreamGuard on_stream(c10::cuda::getStreamFromPool());
    results.push_back(run(cell, a, dy, dhT, options));
  }
  torch::cuda::synchronize();
  for (const Results& r : results) expect_equal(on_cpu(r), expected);
}

TEST_F(OpsScanCuda, LearnedPlansAreAsExactAsTheFirst) {
  const CellDefinition& cell = find_cell("gru");
  Arguments a = random_arguments(cell, 1, 16384, 32, torch::kFloat32, 12);
  a.u.select(2, 0) -= 4;  // remembers for some fifty steps
  const Tensor dy = torch::randn({1, 16384, 32}), dhT = torch::randn_like(a.h0);
  const Results expected = reference(cell, a, dy, dhT);
  const Arguments there = on_gpu(a);
  std::set<std::string> plans;
  for (int i = 0; i < 60; ++i) {
    expect_close(on_cpu(run(cell, there, on_gpu(dy), on_gpu(dhT))), expected, 5e-5);
    const ScanStatistics s = last_scan_statistics().first;
    plans.insert(fmt::format("{} {} {}", s.plan, s.chunk, s.burn_in));
  }
  EXPECT_GT(plans.size(), 1u);  // others than the planner's were tried
}

TEST_F(OpsScanCuda, AMillionSteps) {
  const CellDefinition& cell = find_cell("gru");
  const int64_t T = (1 << 20) + 5;
  const Arguments a = random_arguments(cell, 1, T, 3, torch::kFloat32, 13);
  const Tensor dy = torch::randn({1, T, 3}), dhT = torch::randn_like(a.h0);
  const Results expected = reference(cell, a, dy, dhT);
  expect_close(run_there(cell, a, dy, dhT), expected, 5e-5);
}

TEST_F(OpsScanCuda, MoreNumbersThan32BitsCount) {
  const CellDefinition& cell = find_cell("gru");
  const int64_t B = 4, T = 65536, D = 3072;
  const size_t needed = size_t(B) * T * D * 2 * 10;
  if (at::cuda::getCurrentDeviceProperties()->totalGlobalMem < needed) {
    GTEST_SKIP() << "the GPU has too little memory";
  }
  ASSERT_GT(B * T * D * cell.inputs, int64_t(1) << 31);
  torch::manual_seed(14);
  const auto half = torch::dtype(torch::kBFloat16).device(torch::kCUDA);
  const auto single = torch::dtype(torch::kFloat32).device(torch::kCUDA);
  const Arguments a{torch::randn({B, T, cell.inputs, D}, half),
                    2 * torch::rand({cell.params, D}, single) - 1, torch::rand({B, 1, D}, single)};
  const Tensor dy = torch::randn({B, T, D}, half), dhT = torch::randn_like(a.h0);
  const Results got = run(cell, a, dy, dhT);
  // The last channels of the last row.
  const auto corner = [&](const Tensor& t) {
    return t.narrow(0, B - 1, 1).narrow(-1, D - 4, 4).cpu().contiguous();
  };
  const Arguments part{corner(a.u).to(torch::kFloat32), a.w.narrow(1, D - 4, 4).cpu().contiguous(),
                       corner(a.h0)};
  const Results expected = reference(cell, part, corner(dy).to(torch::kFloat32), corner(dhT));
  const double bfloat16 = 1.0 / 128;
  expect_close(corner(got.y), expected.y, bfloat16, "y");
  expect_close(corner(got.hT), expected.hT, 5e-5, "hT");
  expect_close(corner(got.du), expected.du, bfloat16, "du");
  expect_close(corner(got.dh0), expected.dh0, 5e-5, "dh0");
}

TEST_F(OpsScanCuda, EveryDeviceOfTheProcess) {
  const auto count = torch::cuda::device_count();
  if (count < 2) GTEST_SKIP() << "there is one GPU";
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = random_arguments(cell, 2, 3000, 40, torch::kFloat32, 15);
  const Tensor dy = torch::randn({2, 3000, 40}), dhT = torch::randn_like(a.h0);
  const ScanOptions options{"newton", 256};
  const Results expected = run_there(cell, a, dy, dhT, options);
  for (c10::DeviceIndex i = 0; i < count; ++i) {
    // The current device stays the first: the operators go where their tensors are.
    const torch::Device device(torch::kCUDA, i);
    const auto there = [&](const Tensor& t) { return t.to(device); };
    const Arguments moved{there(a.u), there(a.w), there(a.h0)};
    const Results r = run(cell, moved, there(dy), there(dhT), options);
    EXPECT_EQ(r.y.device(), device);
    expect_equal(on_cpu(r), expected);
    EXPECT_EQ(last_scan_statistics().first.plan, "newton");
  }
}

TEST_F(OpsScanCuda, TakesTheMemoryThatItIsDocumentedToTake) {
  const CellDefinition& cell = find_cell("lstm");
  const int64_t B = 2, T = 8192, D = 256, S = cell.state, columns = B * D;
  const Arguments a = on_gpu(random_arguments(cell, B, T, D, torch::kFloat32, 16));
  const ScanOptions options{"newton", 512};
  const auto peak_of = [&](const std::function<void()>& call) {
    call();
    torch::cuda::synchronize();
    CachingAllocator::emptyCache();
    CachingAllocator::resetPeakStats(0);
    const auto all = size_t(c10::CachingAllocator::StatType::AGGREGATE);
    const int64_t before = CachingAllocator::getDeviceStats(0).allocated_bytes[all].current;
    call();
    return CachingAllocator::getDeviceStats(0).allocated_bytes[all].peak - before;
  };
  const int64_t lanes = columns * (T / 512), slack = 1 << 16;
  const int64_t forward_boundaries = lanes * (S * S + 2 * S) * 4 + columns;
  const int64_t outputs = columns * (T + S) * 4;
  EXPECT_LE(peak_of([&] {
              const torch::NoGradGuard no_grad;
              scan(a.u, a.w, a.h0, "lstm", options);
            }),
            // The boundaries of the last call are kept for its statistics.
            outputs + 2 * forward_boundaries + slack);
  const int64_t checkpoints = columns * (T / cuda::kCheckpointInterval) * S * 4;
  EXPECT_LE(peak_of([&] {
              const Tensor u = a.u.detach().requires_grad_();
              scan(u, a.w, a.h0, "lstm", options);
            }),
            outputs + checkpoints + 2 * forward_boundaries + slack);
}

TEST_F(OpsScanCuda, ArgumentsOnSeveralDevicesAreRefusedByName) {
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = random_arguments(cell, 1, 4, 3, torch::kFloat32, 17);
  const std::string sentence = sentence_of([&] { scan(on_gpu(a.u), a.w, std::nullopt, "gru"); });
  EXPECT_NE(sentence.find("w is on cpu, but u is on cuda:0"), std::string::npos) << sentence;
}

}  // namespace
}  // namespace pararnn
