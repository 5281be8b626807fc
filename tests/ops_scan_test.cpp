// The operators, called as functions and through the dispatcher: equal to the plain loop for every
// cell and dtype, differentiable, right for any strides, and clear about wrong arguments.
#include "ops_test_support.hpp"

#include <torch/autograd.h>

namespace pararnn {
namespace {

using Optional = std::optional<Tensor>;

TEST(OpsScan, EqualsTheLoopForEveryCellPlanAndArithmetic) {
  expect_the_loop([](const auto&... arguments) { return run(arguments...); }, 2e-5, 1e-11);
}

TEST(OpsScan, HalfTensorsAreTheRoundingOfSingleOnes) {
  for (const CellDefinition& cell : built_in_cells()) {
    for (const auto type : {torch::kFloat16, torch::kBFloat16}) {
      SCOPED_TRACE(cell.name);
      const Arguments half = random_arguments(cell, 2, 100, 19, type, 5);
      const Arguments single{half.u.to(torch::kFloat32), half.w, half.h0};
      const Tensor dy = torch::randn({2, 100, 19}, type), dhT = torch::randn_like(half.h0);
      const Results got = run(cell, half, dy, dhT);
      Results expected = run(cell, single, dy.to(torch::kFloat32), dhT);
      expected.y = expected.y.to(type);
      expected.du = expected.du.to(type);
      EXPECT_EQ(got.hT.scalar_type(), torch::kFloat32);
      EXPECT_EQ(got.y.scalar_type(), type);
      expect_equal(got, expected);
    }
  }
}

TEST(OpsScan, GradientsAreThoseOfTheFunction) {
  for (const CellDefinition& cell : built_in_cells()) {
    SCOPED_TRACE(cell.name);
    const Arguments a = random_arguments(cell, 2, 37, 3, torch::kFloat64, 11, 2);
    const Tensor dy = torch::randn({2, 37, 3}, torch::kFloat64), dhT = torch::randn_like(a.h0);
    const ScanOptions options{"newton", 16};
    const Results g = run(cell, a, dy, dhT, options);
    const auto loss = [&](const Arguments& x) {
      torch::NoGradGuard no_grad;
      const auto [y, hT] = scan(x.u, x.w, x.h0, std::string(cell.name), options);
      return ((y * dy).sum() + (hT * dhT).sum()).item<double>();
    };
    for (int direction = 0; direction < 6; ++direction) {
      // One direction through each argument alone, then through all.
      const auto part = [&](const Tensor& t, int which) {
        return direction == which || direction > 2 ? torch::randn_like(t) : torch::zeros_like(t);
      };
      const Arguments to{part(a.u, 0), part(a.w, 1), part(a.h0, 2)};
      const double step = 2e-6;
      const auto moved = [&](double by) {
        return Arguments{a.u + by * to.u, a.w + by * to.w, a.h0 + by * to.h0};
      };
      const double slope = (loss(moved(step)) - loss(moved(-step))) / (2 * step);
      const double product =
          ((g.du * to.u).sum() + (g.dw * to.w).sum() + (g.dh0 * to.h0).sum()).item<double>();
      EXPECT_NEAR(product, slope, 1e-6 * (1 + std::abs(slope))) << "direction " << direction;
    }
  }
}

TEST(OpsScan, GradientsFlowFromEitherResultAlone) {
  const CellDefinition& cell = find_cell("lstm");
  const Arguments a = random_arguments(cell, 2, 40, 5, torch::kFloat64, 12);
  const Tensor dy = torch::randn({2, 40, 5}, torch::kFloat64), dhT = torch::randn_like(a.h0);
  const Tensor u = a.u.detach().requires_grad_();
  const auto [y, hT] = scan(u, a.w, a.h0, "lstm");
  const Tensor from_y = torch::autograd::grad({y}, {u}, {dy}, /*retain_graph=*/true)[0];
  const Tensor from_hT = torch::autograd::grad({hT}, {u}, {dhT})[0];
  expect_close(from_y + from_hT, run(cell, a, dy, dhT).du, 1e-12, "du");
}

TEST(OpsScan, NoInitialStateIsZeros) {
  for (const CellDefinition& cell : built_in_cells()) {
    SCOPED_TRACE(cell.name);
    const Arguments a = random_arguments(cell, 2, 50, 6, torch::kFloat32, 13);
    const std::string name(cell.name);
    const auto [y, hT] = scan(a.u, a.w, std::nullopt, name);
    const auto [y0, hT0] = scan(a.u, a.w, torch::zeros_like(a.h0), name);
    EXPECT_TRUE(torch::equal(y, y0));
    EXPECT_TRUE(torch::equal(hT, hT0));
  }
}

TEST(OpsScan, StridesMakeNoDifference) {
  const CellDefinition& cell = find_cell("gru");
  const int64_t B = 3, T = 45, D = 12, U = cell.inputs, H = 4;
  const Arguments a = random_arguments(cell, B, T, D, torch::kFloat32, 14);
  const Tensor dy = torch::randn({B, T, D}), dhT = torch::randn_like(a.h0);
  const Results expected = run(cell, a, dy, dhT);
  const auto with_u = [&](const Tensor& u) { return run(cell, {u, a.w, a.h0}, dy, dhT); };
  {
    SCOPED_TRACE("time first");
    expect_equal(with_u(a.u.transpose(0, 1).contiguous().transpose(0, 1)), expected);
  }
  {
    SCOPED_TRACE("a part of a larger tensor");
    const Tensor large = torch::full({B + 1, T + 2, U + 3, D + 5}, NAN);
    const Tensor part = large.slice(0, 1).slice(1, 1, T + 1).slice(2, 2, U + 2).slice(3, 3, D + 3);
    part.copy_(a.u);
    expect_equal(with_u(part), expected);
  }
  {
    SCOPED_TRACE("channels that are not neighbours");
    expect_equal(with_u(a.u.transpose(2, 3).contiguous().transpose(2, 3)), expected);
  }
  {
    SCOPED_TRACE("heads");
    const auto split = [&](const Tensor& t) {  // (B,T,U,D) -> (B,T,H,U,D/H)
      return t.view({B, T, U, H, D / H}).permute({0, 1, 3, 2, 4}).contiguous();
    };
    Results got = with_u(split(a.u));
    got.du = got.du.permute({0, 1, 3, 2, 4}).reshape({B, T, U, D});
    expect_equal(got, expected);
  }
  {
    SCOPED_TRACE("one row for all of the batch");
    const Tensor row = a.u.slice(0, 0, 1);
    const Results all = with_u(row.expand({B, T, U, D}));
    expect_equal(all, with_u(row.repeat({B, 1, 1, 1})));
  }
  {
    SCOPED_TRACE("gradients of any strides");
    const Tensor strided = dy.permute({2, 0, 1}).contiguous().permute({1, 2, 0});
    expect_equal(run(cell, a, strided, dhT), expected);
    const Tensor one = torch::ones({1, 1, 1});
    expect_equal(run(cell, a, one.expand({B, T, D}), dhT),
                 run(cell, a, torch::ones({B, T, D}), dhT));
  }
}

TEST(OpsScan, StatesMayHaveAnyStrides) {
  const CellDefinition& cell = find_cell("lstm");
  const Arguments a = random_arguments(cell, 2, 30, 6, torch::kFloat32, 15);
  const Tensor dy = torch::randn({2, 30, 6}), dhT = torch::randn_like(a.h0);
  const auto scattered = [](const Tensor& t) {
    return t.transpose(0, 1).contiguous().transpose(0, 1);
  };
  expect_equal(run(cell, {a.u, scattered(a.w), scattered(a.h0)}, dy, scattered(dhT)),
               run(cell, a, dy, dhT));
}

TEST(OpsScan, EmptyAndSmallestShapes) {
  for (const CellDefinition& cell : built_in_cells()) {
    for (const auto& [B, T, D] : {std::array{2, 0, 3}, {0, 5, 3}, {2, 5, 0}, {1, 1, 1}}) {
      SCOPED_TRACE(fmt::format("{} B{} T{} D{}", cell.name, B, T, D));
      const Arguments a = random_arguments(cell, B, T, D, torch::kFloat64, 16);
      const Tensor dy = torch::randn({B, T, D}, torch::kFloat64), dhT = torch::randn_like(a.h0);
      expect_close(run(cell, a, dy, dhT), reference(cell, a, dy, dhT), 1e-12);
    }
  }
}

TEST(OpsScan, ASequenceCutInTwoIsTheWhole) {
  for (const CellDefinition& cell : built_in_cells()) {
    SCOPED_TRACE(cell.name);
    const std::string name(cell.name);
    const Arguments a = random_arguments(cell, 2, 83, 9, torch::kBFloat16, 17);
    const ScanOptions sequential{"sequential"};
    const auto [y, hT] = scan(a.u, a.w, a.h0, name, sequential);
    const auto [y1, middle] = scan(a.u.slice(1, 0, 30), a.w, a.h0, name, sequential);
    const auto [y2, end] = scan(a.u.slice(1, 30), a.w, middle, name, sequential);
    EXPECT_TRUE(torch::equal(torch::cat({y1, y2}, 1), y));
    EXPECT_TRUE(torch::equal(end, hT));
  }
}

TEST(OpsScan, StepsRepeatedAreAScan) {
  for (const CellDefinition& cell : built_in_cells()) {
    SCOPED_TRACE(cell.name);
    const std::string name(cell.name);
    const Arguments a = random_arguments(cell, 3, 20, 10, torch::kFloat32, 18);
    const auto [y, hT] = scan(a.u, a.w, a.h0, name, {"sequential"});
    Tensor h = a.h0;
    for (int64_t t = 0; t < 20; ++t) {
      const auto [output, next] = step(a.u.select(1, t), a.w, h, name);
      EXPECT_TRUE(torch::equal(output, y.select(1, t)));
      h = next;
    }
    EXPECT_TRUE(torch::equal(h, hT));
  }
}

TEST(OpsScan, TheDispatcherHasTheSameOperators) {
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = random_arguments(cell, 2, 25, 4, torch::kFloat32, 19);
  const auto scan_op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("pararnn::scan", "")
          .typed<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Optional&,
                                            const std::string&, const std::string&, int64_t,
                                            int64_t, double, const Optional&, const Optional&)>();
  const auto [y, hT] =
      scan_op.call(a.u, a.w, a.h0, "gru", "newton", 16, -1, 0, std::nullopt, std::nullopt);
  const auto [y1, hT1] = scan(a.u, a.w, a.h0, "gru", {"newton", 16});
  EXPECT_TRUE(torch::equal(y, y1));
  EXPECT_TRUE(torch::equal(hT, hT1));
  const auto step_op = c10::Dispatcher::singleton()
                           .findSchemaOrThrow("pararnn::step", "")
                           .typed<std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&,
                                                             const Tensor&, const std::string&)>();
  const auto [z, h] = step_op.call(a.u.select(1, 0), a.w, a.h0, "gru");
  EXPECT_TRUE(torch::equal(z, std::get<0>(step(a.u.select(1, 0), a.w, a.h0, "gru"))));
}

TEST(OpsScan, MetaTensorsHaveTheShapesOfTheResults) {
  for (const CellDefinition& cell : built_in_cells()) {
    for (const auto type : {torch::kBFloat16, torch::kFloat64}) {
      SCOPED_TRACE(cell.name);
      const Arguments a = random_arguments(cell, 2, 20, 6, type, 20);
      const auto meta = [](const Tensor& t) { return t.to(torch::kMeta).requires_grad_(); };
      const Tensor u = meta(a.u), w = meta(a.w), h0 = meta(a.h0);
      const auto [y, hT] = scan(u, w, h0, std::string(cell.name));
      const auto [y1, hT1] = scan(a.u, a.w, a.h0, std::string(cell.name));
      EXPECT_TRUE(y.is_meta() && hT.is_meta());
      EXPECT_EQ(y.sizes(), y1.sizes());
      EXPECT_EQ(hT.sizes(), hT1.sizes());
      EXPECT_EQ(y.scalar_type(), y1.scalar_type());
      EXPECT_EQ(hT.scalar_type(), hT1.scalar_type());
      const auto g =
          torch::autograd::grad({y, hT}, {u, w, h0}, {torch::empty_like(y), torch::empty_like(hT)});
      EXPECT_EQ(g[0].sizes(), u.sizes());
      EXPECT_EQ(g[1].sizes(), w.sizes());
      EXPECT_EQ(g[2].sizes(), h0.sizes());
    }
  }
}

TEST(OpsScan, StatisticsTellWhatWasDone) {
  const CellDefinition& cell = find_cell("gru");
  Arguments a = random_arguments(cell, 1, 640, 3, torch::kFloat32, 21);
  a.u.select(2, 0) -= 5;  // a long memory, which no burn-in forgets
  const Tensor dy = torch::randn({1, 640, 3}), dhT = torch::randn_like(a.h0);
  run(cell, a, dy, dhT, {"speculative", 64, 16});
  for (const ScanStatistics& s : {last_scan_statistics().first, last_scan_statistics().second}) {
    EXPECT_EQ(s.plan, "speculative");
    EXPECT_EQ(s.chunk, 64);
    EXPECT_EQ(s.chunks, 10);
    EXPECT_EQ(s.burn_in, 16);
    EXPECT_EQ(s.columns, 3);
    EXPECT_GT(s.newton_iterations, 0);
    EXPECT_LE(s.largest_mismatch, 1e-6);
    EXPECT_EQ(s.columns_corrected, 3);
  }
  run(cell, a, dy, dhT, {"sequential"});
  EXPECT_EQ(last_scan_statistics().first.chunks, 1);
  EXPECT_EQ(last_scan_statistics().first.largest_mismatch, 0);
}

TEST(OpsScan, ALooserToleranceCorrectsFewerColumns) {
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = random_arguments(cell, 1, 2000, 30, torch::kFloat32, 22);
  const auto corrected = [&](double tolerance) {
    scan(a.u, a.w, a.h0, "gru", {"speculative", 128, 16, tolerance});
    return last_scan_statistics().first.columns_corrected;
  };
  EXPECT_GT(corrected(1e-6), corrected(1e-1));
}

TEST(OpsScan, NotANumberStaysInItsColumn) {
  const CellDefinition& cell = find_cell("gru");
  Arguments a = random_arguments(cell, 2, 200, 5, torch::kFloat32, 23);
  a.u[1][70][0][3] = NAN;
  for (const char* plan : kPlans) {
    const auto [y, hT] = scan(a.u, a.w, a.h0, "gru", {plan, 48});
    Tensor expected = torch::zeros({2, 200, 5}, torch::kBool);
    expected[1].slice(0, 70).select(1, 3).fill_(true);
    EXPECT_TRUE(torch::equal(y.isnan(), expected)) << plan;
    EXPECT_EQ(hT.isnan().sum().item<int64_t>(), 1) << plan;
  }
}

}  // namespace
}  // namespace pararnn
