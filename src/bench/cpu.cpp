#include "bench/cpu.hpp"

#include <fmt/format.h>
#include <torch/autograd.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "bench/host_timer.hpp"
#include "bench/report.hpp"
#include "bench/tables.hpp"
#include "bench/torch_loop.hpp"
#include "bench/vectorized_loop.hpp"
#include "cells/cell_reference.hpp"
#include "cells/cell_registry.hpp"
#include "cells/cpu_kernels.hpp"
#include "kernels/scan_arguments.hpp"
#include "ops/scan/scan_kernels.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;
using torch::Tensor;

/// Throws Error if the engine's results are wrong. Of tensors in half precision, what float32 ones
/// with the same numbers give.
void validate(const CheckCase& c, const BenchProblem& problem) {
  BenchProblem wide = problem;
  wide.u = problem.u.to(problem.w.scalar_type());
  wide.dy = problem.dy.to(problem.w.scalar_type());
  const BenchResults results = run_problem(c, wide);
  const auto [forward, backward] = last_scan_statistics();
  const std::string wrong = what_is_wrong(c, wide, results, forward, backward, 2);
  require(wrong.empty(), "{}", wrong);
}

/// Gigabytes per second, read and written together, of a copy between tensors too large for any
/// cache.
double copy_bandwidth() {
  const Tensor from = torch::ones({int64_t(64) << 20}), to = torch::empty_like(from);
  const double milliseconds = median_milliseconds([&] { Tensor(to).copy_(from); }, 7, 0.5);
  return 2 * double(from.nbytes()) / milliseconds / 1e6;
}

/// Adds the times of the plain loops in float32.
void measure_plain_loops(const CheckCase& c, const BenchProblem& p, json& result) {
  const auto single = [](const Tensor& t) { return t.to(torch::kFloat32).contiguous(); };
  const Tensor u = single(p.u), w = single(p.w), h0 = single(p.h0);
  Tensor y = torch::empty({c.batch, c.steps, c.channels}), hT = torch::empty_like(h0);
  const Shape shape{c.batch, c.steps, c.channels};
  const CellReference& reference = cell_reference(find_cell(c.cell));
  result["scalar_loop_ms"] = median_milliseconds(
      [&] {
        reference.single_forward(shape, u.const_data_ptr<float>(), w.const_data_ptr<float>(),
                                 h0.const_data_ptr<float>(), y.data_ptr<float>(),
                                 hT.data_ptr<float>(), nullptr, {});
      },
      5, 0.3);
  const VectorizedLoop vectorized_loop = find_vectorized_loop(c.cell);
  if (!vectorized_loop) return;
  result["vectorized_loop_ms"] = median_milliseconds(
      [&] {
        hT.copy_(h0);
        vectorized_loop(shape, u.const_data_ptr<float>(), w.const_data_ptr<float>(),
                        hT.data_ptr<float>(), y.data_ptr<float>());
      },
      5, 0.3);
}

/// The times of one cell, shape and regime. The loop of ops depends on the shape alone: it is
/// measured once and kept in `torch_loops`.
json measure(const CheckCase& c, const std::string& regime, double bandwidth,
             std::map<std::string, double>& torch_loops, bool with_baselines) {
  const BenchProblem p = random_problem_on(torch::kCPU, c);
  validate(c, p);
  const double element = double(p.u.element_size()), number = double(p.w.element_size());
  const double columns = double(c.batch * c.channels), steps = columns * double(c.steps);
  const double inputs = double(p.u.size(2)), state = double(p.h0.size(1));
  json result = describe_case(c, regime);
  // What has to be moved at least: u in, y out; and back u, dy and checkpoints in, du out.
  const double checkpoints =
      columns * state * number *
      double(kernels::checkpoint_count(c.steps, checkpoint_interval_on(p.u.device())));
  const double forward_bytes = steps * (inputs + 1) * element;
  const double both_bytes = forward_bytes + steps * (2 * inputs + 1) * element + 2 * checkpoints;

  const double forward = median_milliseconds(
      [&] {
        torch::NoGradGuard no_grad;
        scan(p.u, p.w, p.h0, c.cell, c.options);
      },
      7, 0.4);
  const ScanStatistics plan = last_scan_statistics().first;
  const Tensor u = p.u.detach().requires_grad_(), w = p.w.detach().requires_grad_();
  const Tensor h0 = p.h0.detach().requires_grad_();
  const auto gradients_of = [&](const std::tuple<Tensor, Tensor>& results, const Tensor& dy) {
    // A cell may have no parameters, or not use an input.
    torch::autograd::grad({std::get<0>(results), std::get<1>(results)}, {u, w, h0}, {dy, p.dhT},
                          /*retain_graph=*/std::nullopt, /*create_graph=*/false,
                          /*allow_unused=*/true);
  };
  const double both =
      median_milliseconds([&] { gradients_of(scan(u, w, h0, c.cell, c.options), p.dy); }, 7, 0.6);
  result["plan"] = plan.plan;
  result["chunks"] = plan.chunks;
  result["newton_iterations"] = plan.newton_iterations;
  result["columns_corrected"] = plan.columns_corrected;
  result["columns_repaired"] = plan.columns_repaired;
  result["forward_ms"] = forward;
  result["forward_backward_ms"] = both;
  result["forward_roof_ms"] = forward_bytes / bandwidth / 1e6;
  result["forward_backward_roof_ms"] = both_bytes / bandwidth / 1e6;
  if (!with_baselines) return result;

  measure_plain_loops(c, p, result);
  const std::string key =
      fmt::format("{} {} {} {} {}", c.cell, c.batch, c.steps, c.channels, c.dtype);
  if (!torch_loops.count(key)) {
    // Measured once, in full; a short piece of it is the warm-up.
    const auto run = [&](int64_t length) {
      const auto [outputs, end] = torch_loop(c.cell, u.narrow(1, 0, length), w, h0);
      gradients_of({outputs, end}, p.dy.narrow(1, 0, length));
    };
    run(std::min<int64_t>(c.steps, 32));
    const auto start = std::chrono::steady_clock::now();
    run(c.steps);
    torch_loops[key] = 1e3 * seconds_since(start);
  }
  result["torch_loop_forward_backward_ms"] = torch_loops.at(key);
  return result;
}

}  // namespace

json describe_processor() {
  std::string processor = "unknown";
  std::ifstream information("/proc/cpuinfo");
  for (std::string line; std::getline(information, line);) {
    if (line.rfind("model name", 0) == 0) {
      processor = line.substr(std::min(line.size(), line.find(':') + 2));
      break;
    }
  }
  return {{"processor", processor},
          {"cores", std::thread::hardware_concurrency()},
          {"threads", torch::get_num_threads()},
          {"instruction_set", instruction_set()},
          {"compiler", "g++ " __VERSION__},
          {"libtorch", TORCH_VERSION}};
}

json bench_on_cpu(const BenchOptions& options) {
  json report = {{"device", "cpu"},
                 {"machine", describe_processor()},
                 {"dtype", options.dtype},
                 {"copy_gigabytes_per_second", copy_bandwidth()},
                 {"results", json::array()}};
  print(machine_line(report) + cpu_table_header());
  std::map<std::string, double> torch_loops;
  for (const std::string& cell : options.cells) {
    for (const BenchShape& shape : options.shapes) {
      for (const std::string& regime : options.regimes) {
        const CheckCase c = case_of(cell, shape, regime, options.dtype, "cpu", options.scan);
        report["results"].push_back(measure(c, regime, report["copy_gigabytes_per_second"],
                                            torch_loops, options.baselines));
        print(cpu_table_row(report["results"].back()));
        if (!options.json_file.empty()) write_report(options.json_file, report);
      }
    }
  }
  return report;
}

}  // namespace pararnn::bench
