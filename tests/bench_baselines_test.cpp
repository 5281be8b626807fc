// What `pararnn bench` times: its problems, and its baselines on the CPU.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/utils.h>

#include <string>

#include "base/error.hpp"
#include "bench/baselines.hpp"
#include "bench/options.hpp"
#include "bench/problem.hpp"
#include "bench/ssd.hpp"
#include "bench/torch_loop.hpp"
#include "cells/cell_registry.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn::bench {
namespace {

using torch::Tensor;

/// The recurrence that ssd computes, step by step.
Tensor plain_state_space(const Tensor& x, const Tensor& dt, const Tensor& a, const Tensor& b,
                         const Tensor& c) {
  Tensor state = torch::zeros({x.size(0), x.size(2), b.size(2), x.size(3)}, x.options());
  std::vector<Tensor> y;
  for (int64_t t = 0; t < x.size(1); ++t) {
    const Tensor step = dt.select(1, t);  // (B,H)
    const Tensor input = torch::einsum("bh,bn,bhp->bhnp", {step, b.select(1, t), x.select(1, t)});
    state = state * (step * a).exp().unsqueeze(-1).unsqueeze(-1) + input;
    y.push_back(torch::einsum("bn,bhnp->bhp", {c.select(1, t), state}));
  }
  return torch::stack(y, 1);
}

TEST(BenchBaselines, TheLoopOfOperationsIsTheScanOfAnyCell) {
  torch::manual_seed(1);
  const std::string folder = PARARNN_SOURCE "/examples/cells/";
  for (const std::string& name :
       {std::string("gru"), std::string("lstm"), std::string("slstm"), folder + "cfc.hpp",
        folder + "gru_d.hpp", folder + "indrnn_relu.hpp", folder + "min_gru.hpp"}) {
    const CellDefinition& cell = find_cell(name);
    const auto leaf = [](const Tensor& t) { return t.to(torch::kFloat64).requires_grad_(); };
    const Tensor u = leaf(torch::randn({2, 30, cell.inputs, 3}));
    const Tensor w = leaf(torch::rand({cell.params, 3}) - 0.5);
    const Tensor h0 = leaf(torch::rand({2, cell.state, 3}) + 0.1);
    const auto [y, hT] = scan(u, w, h0, name, {});
    const auto [y_loop, hT_loop] = torch_loop(name, u, w, h0);
    EXPECT_TRUE(torch::allclose(y, y_loop)) << name;
    EXPECT_TRUE(torch::allclose(hT, hT_loop)) << name;
    const auto got = torch::autograd::grad({y.sum()}, {u, w, h0});
    const auto expected = torch::autograd::grad({y_loop.sum()}, {u, w, h0}, {},
                                                /*retain_graph=*/std::nullopt,
                                                /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < got.size(); ++i) {
      if (!expected[i].defined()) continue;  // a cell without parameters
      EXPECT_TRUE(torch::allclose(got[i], expected[i])) << name << " gradient " << i;
    }
  }
}

TEST(BenchBaselines, StateSpaceDualityIsTheLoopOverSteps) {
  torch::manual_seed(1);
  const auto wide = torch::dtype(torch::kFloat64);
  const int64_t B = 2, H = 3, P = 4, N = 5;
  for (const auto& [steps, chunk] : {std::pair<int64_t, int64_t>{24, 8}, {21, 8}, {7, 7}, {1, 4}}) {
    const auto leaf = [](const Tensor& t) { return t.detach().requires_grad_(); };
    const Tensor x = leaf(torch::randn({B, steps, H, P}, wide));
    const Tensor dt = leaf(torch::rand({B, steps, H}, wide)), a = leaf(-torch::rand({H}, wide));
    const Tensor b = leaf(torch::randn({B, steps, N}, wide));
    const Tensor c = leaf(torch::randn({B, steps, N}, wide));
    const Tensor weight = torch::randn({B, steps, H, P}, wide);
    const Tensor y = ssd(x, dt, a, b, c, chunk), loop = plain_state_space(x, dt, a, b, c);
    EXPECT_TRUE(torch::allclose(y, loop)) << steps << " steps in chunks of " << chunk;
    const auto gradients = torch::autograd::grad({y}, {x, dt, a, b, c}, {weight});
    const auto expected = torch::autograd::grad({loop}, {x, dt, a, b, c}, {weight});
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(torch::allclose(gradients[i], expected[i])) << "gradient " << i;
    }
  }
}

TEST(BenchBaselines, EveryBaselineRunsBothWays) {
  for (const BaselineKind& kind : baseline_kinds()) {
    for (const char* cell : {"gru", "lstm"}) {
      for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
        const Baseline baseline = kind.make(cell, {2, 20, 256}, dtype, torch::kCPU);
        const Tensor y = baseline.run();
        EXPECT_EQ(y.sizes(), baseline.gradient.sizes()) << kind.name;
        EXPECT_EQ(y.scalar_type(), dtype) << kind.name;
        EXPECT_EQ(y.numel(), 2 * 20 * 256) << kind.name;
        EXPECT_TRUE(torch::isfinite(y).all().item<bool>()) << kind.name;
        for (const Tensor& gradient :
             torch::autograd::grad({y}, baseline.leaves, {baseline.gradient})) {
          EXPECT_TRUE(torch::isfinite(gradient).all().item<bool>()) << kind.name;
        }
        EXPECT_NO_THROW(baseline.forward());
        EXPECT_NO_THROW(baseline.forward_backward());
      }
    }
  }
}

TEST(BenchBaselines, ThereIsADenseLayerOnlyOfSomeCells) {
  for (const BaselineKind& kind : baseline_kinds()) {
    if (std::string(kind.name).find("cuDNN") == std::string::npos) continue;
    EXPECT_THROW(kind.make("slstm", {1, 4, 8}, torch::kFloat32, torch::kCPU), Error);
  }
}

CheckCase small_case(const std::string& dtype) {
  return case_of("lstm", {2, 40, 6}, "memory", dtype, "cpu");
}

TEST(BenchBaselines, ProblemsAreReproducibleAndOfTheirRegime) {
  const CheckCase c = case_of("gru", {4, 500, 16}, "hard", "bfloat16", "cpu");
  const BenchProblem p = random_problem_on(torch::kCPU, c), q = random_problem_on(torch::kCPU, c);
  EXPECT_TRUE(torch::equal(p.u, q.u) && torch::equal(p.dhT, q.dhT));
  EXPECT_FALSE(torch::equal(p.u.select(2, 1), p.u.select(2, 2)));
  EXPECT_EQ(p.u.scalar_type(), torch::kBFloat16);
  EXPECT_EQ(p.w.scalar_type(), torch::kFloat32);
  EXPECT_NEAR(p.u.select(2, 0).to(torch::kFloat32).mean().item<float>(), -4, 0.05);
  EXPECT_NEAR(p.u.select(2, 1).to(torch::kFloat32).std().item<float>(), 1, 0.05);
  EXPECT_GT(p.w.abs().max().item<float>(), 3);
  EXPECT_LE(p.w.abs().max().item<float>(), 4);
  EXPECT_THROW(case_of("gru", {1, 1, 1}, "gentle", "float32", "cpu"), Error);
}

TEST(BenchBaselines, ValidationFindsOneWrongNumberAtEitherEnd) {
  const CheckCase c = small_case("float32");
  const BenchProblem p = random_problem_on(torch::kCPU, c);
  const BenchResults right = run_problem(c, p);
  const auto [forward, backward] = last_scan_statistics();
  EXPECT_EQ(what_is_wrong(c, p, right, forward, backward, 1), "");
  for (const size_t which : {0, 2}) {
    for (const int64_t channel : {int64_t(0), c.channels - 1}) {
      BenchResults wrong = right;
      wrong.of[which] = right.of[which].clone();
      wrong.of[which].select(-1, channel).select(0, 1).select(0, 17) += 0.01;
      EXPECT_NE(what_is_wrong(c, p, wrong, forward, backward, 1), "") << which << " " << channel;
    }
  }
}

}  // namespace
}  // namespace pararnn::bench
