// pararnn bench: its baselines on the CPU, and the documents that it makes of measurements.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "cli/bench_baselines.hpp"
#include "cli/bench_gpu_scan.hpp"
#include "cli/bench_plot.hpp"
#include "cli/bench_report.hpp"
#include "cli/bench_ssd.hpp"
#include "cli/bench_tables.hpp"
#include "cli/bench_torch_loop.hpp"
#include "ops/scan.hpp"

namespace pararnn::cli {
namespace {

using nlohmann::json;
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

TEST(CliBench, TheLoopOfOperationsIsTheScanOfAnyCell) {
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

TEST(CliBench, StateSpaceDualityIsTheLoopOverSteps) {
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

TEST(CliBench, EveryBaselineRunsBothWays) {
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

TEST(CliBench, ThereIsADenseLayerOnlyOfSomeCells) {
  for (const BaselineKind& kind : baseline_kinds()) {
    if (std::string(kind.name).find("cuDNN") == std::string::npos) continue;
    EXPECT_THROW(kind.make("slstm", {1, 4, 8}, torch::kFloat32, torch::kCPU), Error);
  }
}

CheckCase small_case(const std::string& dtype) {
  return case_of("lstm", {2, 40, 6}, "memory", dtype, "cpu");
}

TEST(CliBench, ProblemsAreReproducibleAndOfTheirRegime) {
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

TEST(CliBench, ValidationFindsOneWrongNumberAtEitherEnd) {
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

json pass(double us, double sequential_us = 0) {
  json result = {{"plan", "newton"},
                 {"chunk", 512},
                 {"chunks", 4},
                 {"burn_in", 64},
                 {"newton_iterations", 2},
                 {"columns", 2048},
                 {"columns_corrected", 512},
                 {"columns_repaired", 0},
                 {"us", us},
                 {"roof_us", 100.0}};
  if (sequential_us > 0) result["sequential_us"] = sequential_us;
  return result;
}

json scan_result(const char* regime, int64_t batch, int64_t steps, double us) {
  json result =
      describe_case(case_of("gru", {batch, steps, 2048}, regime, "bfloat16", "cuda"), regime);
  const double sequential = std::string(regime) == "hard" ? us : 0;
  result["part"] = "scan";
  result["forward"] = pass(us, sequential);
  result["training_forward"] = pass(us);
  result["backward"] = pass(2 * us, 1.5 * sequential);
  result["eager_forward_us"] = us;
  result["eager_forward_backward_us"] = 3 * us;
  return result;
}

json baseline(const char* name, int64_t steps, double us) {
  return {
      {"name", name},   {"cell", "gru"},    {"dtype", "bfloat16"}, {"batch", 1},
      {"steps", steps}, {"channels", 2048}, {"forward_us", us},    {"forward_backward_us", 3 * us}};
}

json gpu_report() {
  return {
      {"device", "cuda"},
      {"machine", {{"processor", "A GPU"}, {"multiprocessors", 100}, {"libtorch", TORCH_VERSION}}},
      {"dtype", "bfloat16"},
      {"copy_gigabytes_per_second", 2000.0},
      {"empty_graph_us", 3.0},
      {"results",
       {scan_result("forgetting", 1, 1024, 100), scan_result("forgetting", 1, 4096, 300)}},
      {"decode", json::array()},
      {"baselines", {baseline("loop of ops", 1024, 5e4), baseline("loop of ops", 4096, 2e5)}}};
}

/// The fields of a line of a table.
std::vector<std::string> fields(const std::string& row) {
  std::vector<std::string> result;
  size_t from = 2;
  for (size_t to; (to = row.find(" |", from)) != std::string::npos; from = to + 3) {
    result.push_back(to > from ? row.substr(from, to - from) : "");
  }
  return result;
}

TEST(CliBench, LinesOfTablesHaveTheColumnsOfTheirHeaders) {
  const json report = gpu_report();
  const json& result = report["results"][0];
  const auto columns = [](const std::string& header) {
    return fields(header.substr(0, header.find('\n'))).size();
  };
  EXPECT_EQ(fields(gpu_table_row(result)).size(), columns(gpu_table_header()));
  EXPECT_EQ(fields(module_table_row(report, result)).size(), columns(module_table_header()));
  EXPECT_EQ(fields(baseline_table_row(report, report["baselines"][0])).size(),
            columns(baseline_table_header()));
  const json wrong = {{"cell", "gru"}, {"dtype", "bfloat16"}, {"batch", 1},   {"steps", 5},
                      {"channels", 7}, {"regime", "hard"},    {"wrong", "no"}};
  EXPECT_EQ(fields(gpu_table_row(wrong)).size(), columns(gpu_table_header()));
  EXPECT_EQ(fields(module_table_row(report, wrong)).size(), columns(module_table_header()));
  EXPECT_EQ(fields(decode_table_row(wrong)).size(), columns(decode_table_header()));
}

TEST(CliBench, TargetsAreJudged) {
  const auto targets = [](const json& result) { return fields(gpu_table_row(result)).back(); };
  EXPECT_EQ(targets(scan_result("forgetting", 32, 2048, 119)), "1.2× met, 1.4× missed");
  EXPECT_EQ(targets(scan_result("memory", 1, 65536, 150)), "2.8× met, 2× missed");
  EXPECT_EQ(targets(scan_result("forgetting", 1, 2048, 24.9)), "25 µs met, 50 µs met");
  EXPECT_EQ(targets(scan_result("forgetting", 1, 512, 24.9)), "");
  // Twice the sequential plan's 1.5.
  EXPECT_EQ(targets(scan_result("hard", 1, 512, 50)), "1.1× sequential missed");
  EXPECT_NE(gpu_table_row(scan_result("hard", 1, 512, 50)).find("1.00×, 1.33×"), std::string::npos);
}

TEST(CliBench, BaselinesAreRatiosToTheEngine) {
  const json report = gpu_report();
  const auto row = fields(baseline_table_row(report, report["baselines"][0]));
  EXPECT_EQ(row[5], "500×");  // 5e4 of 100
  EXPECT_EQ(row[7], "500×");  // 15e4 of 100 + 200
  json skipped = report["baselines"][0];
  skipped["skipped"] = "out of memory";
  EXPECT_NE(baseline_table_row(report, skipped).find("out of memory"), std::string::npos);
}

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("pararnn_cli_bench_" + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string write(const std::string& name, const json& report) const {
    write_report(path / name, report);
    return path / name;
  }
};

TEST(CliBench, ReportsAreMergedAndTheLastMeasurementCounts) {
  const Folder folder;
  json first = gpu_report(), second = gpu_report();
  second["results"] = {scan_result("forgetting", 1, 4096, 250), scan_result("memory", 1, 4096, 9)};
  second["baselines"] = {baseline("attention", 4096, 77)};
  const json merged =
      read_reports({folder.write("first.json", first), folder.write("second.json", second)});
  ASSERT_EQ(merged["results"].size(), 3u);
  EXPECT_EQ(merged["results"][0], first["results"][0]);
  EXPECT_EQ(merged["results"][1]["forward"]["us"], 250);
  EXPECT_EQ(merged["results"][2]["regime"], "memory");
  EXPECT_EQ(merged["baselines"].size(), 3u);
  second["machine"]["processor"] = "Another GPU";
  EXPECT_THROW(read_reports({folder.path / "first.json", folder.write("other.json", second)}),
               Error);
  const std::string document = markdown_of(merged, "docs/gpu.md", "docs/gpu.svg");
  for (const char* words :
       {"A GPU", "2000 GB/s", "B1 T4096 D2048", "250", "attention", "25 %", "](gpu.svg)"}) {
    EXPECT_NE(document.find(words), std::string::npos) << words;
  }
}

int occurrences(const std::string& text, const std::string& word) {
  int count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

TEST(CliBench, ThePlotHasAPointForEachMeasurement) {
  json report = gpu_report();
  report["baselines"][1]["measured_steps"] = 2048;
  report["results"].push_back(scan_result("forgetting", 8, 4096, 1));  // another batch
  const std::string svg = time_against_steps_svg(report);
  // Two of the engine, two of the loop, and one each in the legend.
  EXPECT_EQ(occurrences(svg, "<circle"), 6);
  EXPECT_EQ(occurrences(svg, "fill=\"none\""), 1) << "of the extrapolated point";
  EXPECT_EQ(occurrences(svg, "<svg"), occurrences(svg, "</svg>"));
  EXPECT_NE(svg.find("gru, forgetting"), std::string::npos);
  EXPECT_NE(svg.find("loop of ops"), std::string::npos);
  EXPECT_NE(svg.find("prefers-color-scheme:dark"), std::string::npos);
  report["device"] = "cpu";
  EXPECT_THROW(time_against_steps_svg(report), Error);
}

/// The numbers of an attribute, in order.
std::vector<double> attributes(const std::string& svg, const std::string& name) {
  std::vector<double> result;
  const std::string key = " " + name + "=\"";
  for (size_t at = svg.find(key); at != std::string::npos; at = svg.find(key, at + 1)) {
    result.push_back(std::stod(svg.substr(at + key.size())));
  }
  return result;
}

TEST(CliBench, EqualFactorsAreEqualDistancesInThePlot) {
  const std::string svg =
      plot_svg({"a < b & c", "x", "y", {{"one", {{64, 1}, {256, 10}, {1024, 100}}}}});
  const auto x = attributes(svg, "cx"), y = attributes(svg, "cy");
  EXPECT_NEAR(x[1] - x[0], x[2] - x[1], 0.11);
  EXPECT_NEAR(y[1] - y[0], y[2] - y[1], 0.11);
  EXPECT_GT(x[1], x[0]);
  EXPECT_LT(y[1], y[0]);
  EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_THROW(plot_svg({"", "", "", {}}), Error);
  EXPECT_THROW(plot_svg({"", "", "", {{"zero", {{1, 0}}}}}), Error);
}

}  // namespace
}  // namespace pararnn::cli
