#include "cli/bench_measure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "cli/bench_loops.hpp"
#include "cli/cell_reference.hpp"
#include "ops/cpu/cell_kernels.hpp"
#include "ops/scan_kernels.hpp"

namespace pararnn::cli {
namespace {

using torch::Tensor;

/// Some channels of all tensors.
std::pair<CheckProblem, CheckResults> narrow(const CheckProblem& p, const CheckResults& r,
                                             int64_t first, int64_t count) {
  const auto part = [&](const Tensor& t) { return t.narrow(-1, first, count).contiguous(); };
  CheckResults results{{}, part(r.checkpoints)};
  for (size_t i = 0; i < r.of.size(); ++i) results.of[i] = part(r.of[i]);
  return {{part(p.u), part(p.w), part(p.h0), part(p.dy), part(p.dhT)}, results};
}

/// Judges the first and the last two channels as `pararnn check` does; throws Error if they are
/// wrong. Of tensors in half precision, what float32 ones with the same numbers give.
void validate(const CheckCase& c, const CheckProblem& problem) {
  CheckProblem wide = problem;
  wide.u = problem.u.to(problem.w.scalar_type());
  wide.dy = problem.dy.to(problem.w.scalar_type());
  const CheckResults results = run_problem(c, wide);
  const auto [forward, backward] = last_scan_statistics();
  const int64_t count = std::min<int64_t>(c.channels, 2);
  for (const int64_t first : {int64_t(0), c.channels - count}) {
    const auto [part, part_results] = narrow(wide, results, first, count);
    const CheckReport report = judge(c, part, part_results, forward, backward);
    require(report.passed(),
            "{} at B{} T{} D{}: the result is off by {:.3g} times what is permitted; see "
            "pararnn check",
            c.cell, c.batch, c.steps, c.channels, report.worst());
  }
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double median_milliseconds(const std::function<void()>& run, int fewest, double seconds) {
  run();
  std::vector<double> times;
  const auto start = std::chrono::steady_clock::now();
  while (int(times.size()) < fewest || (seconds_since(start) < seconds && times.size() < 1000)) {
    const auto before = std::chrono::steady_clock::now();
    run();
    times.push_back(1e3 * seconds_since(before));
  }
  std::nth_element(times.begin(), times.begin() + std::ptrdiff_t(times.size() / 2), times.end());
  return times[times.size() / 2];
}

double copy_bandwidth() {
  const Tensor from = torch::ones({int64_t(64) << 20}), to = torch::empty_like(from);
  const double milliseconds = median_milliseconds([&] { Tensor(to).copy_(from); }, 7, 0.5);
  return 2 * double(from.nbytes()) / milliseconds / 1e6;
}

nlohmann::json measure(const CheckCase& c, const std::string& regime, double bandwidth,
                       std::map<std::string, double>& torch_loops, bool with_torch_loop) {
  const CheckProblem p = random_problem(c);
  validate(c, p);
  const double element = double(p.u.element_size()), number = double(p.w.element_size());
  const double columns = double(c.batch * c.channels), steps = columns * double(c.steps);
  const double inputs = double(p.u.size(2)), state = double(p.h0.size(1));
  nlohmann::json result = {
      {"cell", c.cell},
      {"dtype", c.dtype},
      {"batch", c.batch},
      {"steps", c.steps},
      {"channels", c.channels},
      {"regime", regime},
      {"weights", c.weight_scale},
      {"gate_bias", c.gate_bias},
  };
  // What has to be moved at least: u in, y out; and back u, dy and checkpoints in, du out.
  const double checkpoints =
      columns * state * number *
      double(checkpoint_count(c.steps, checkpoint_interval_on(p.u.device())));
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
  const auto gradients_of = [&](const std::tuple<Tensor, Tensor>& results) {
    torch::autograd::grad({std::get<0>(results), std::get<1>(results)}, {u, w, h0}, {p.dy, p.dhT});
  };
  const double both =
      median_milliseconds([&] { gradients_of(scan(u, w, h0, c.cell, c.options)); }, 7, 0.6);
  result["plan"] = plan.plan;
  result["chunks"] = plan.chunks;
  result["newton_iterations"] = plan.newton_iterations;
  result["columns_corrected"] = plan.columns_corrected;
  result["columns_repaired"] = plan.columns_repaired;
  result["forward_ms"] = forward;
  result["forward_backward_ms"] = both;
  result["forward_roof_ms"] = forward_bytes / bandwidth / 1e6;
  result["forward_backward_roof_ms"] = both_bytes / bandwidth / 1e6;

  const auto single = [](const Tensor& t) { return t.to(torch::kFloat32).contiguous(); };
  const Tensor u32 = single(p.u), w32 = single(p.w), h32 = single(p.h0);
  Tensor y = torch::empty({c.batch, c.steps, c.channels}), hT = torch::empty_like(h32);
  const Shape shape{c.batch, c.steps, c.channels};
  const CellReference& reference = cell_reference(c.cell);
  result["scalar_loop_ms"] = median_milliseconds(
      [&] {
        reference.single_forward(shape, u32.const_data_ptr<float>(), w32.const_data_ptr<float>(),
                                 h32.const_data_ptr<float>(), y.data_ptr<float>(),
                                 hT.data_ptr<float>(), nullptr);
      },
      5, 0.3);
  result["vectorized_loop_ms"] = median_milliseconds(
      [&] {
        vectorized_loop(c.cell, shape, u32.const_data_ptr<float>(), w32.const_data_ptr<float>(),
                        h32.const_data_ptr<float>(), y.data_ptr<float>(), hT.data_ptr<float>());
      },
      5, 0.3);
  if (with_torch_loop) {
    const std::string key =
        fmt::format("{} {} {} {} {}", c.cell, c.batch, c.steps, c.channels, c.dtype);
    if (!torch_loops.count(key)) {
      // Measured once, in full; a short piece of it is the warm-up.
      const auto run = [&](int64_t length) {
        const auto [outputs, state] = torch_loop(c.cell, u.narrow(1, 0, length), w, h0);
        torch::autograd::grad({outputs, state}, {u, w, h0}, {p.dy.narrow(1, 0, length), p.dhT});
      };
      run(std::min<int64_t>(c.steps, 32));
      const auto start = std::chrono::steady_clock::now();
      run(c.steps);
      torch_loops[key] = 1e3 * seconds_since(start);
    }
    result["torch_loop_forward_backward_ms"] = torch_loops.at(key);
  }
  return result;
}

nlohmann::json describe_machine() {
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
          {"instruction_set", cpu::instruction_set()},
          {"compiler", "g++ " __VERSION__},
          {"libtorch", TORCH_VERSION}};
}

}  // namespace pararnn::cli
