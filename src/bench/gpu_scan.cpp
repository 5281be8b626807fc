#include "bench/gpu_scan.hpp"

#include <fmt/format.h>
#include <torch/autograd.h>
#include <torch/cuda.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "cells/cell_reference.hpp"
#include "cells/cell_registry.hpp"
#include "ops/scan/scan_kernels.hpp"
#include "pararnn/plan.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;
using torch::Tensor;

struct Forward {
  Tensor y, hT, checkpoints;
};
struct Backward {
  Tensor du, dw, dh0;
};

Forward run_forward(const CheckCase& c, const BenchProblem& p, const ScanOptions& options,
                    int64_t checkpoint_interval) {
  const auto [y, hT, checkpoints, remembers] =
      call_scan_forward(p.u, p.w, p.h0, c.cell, options, checkpoint_interval);
  return {y, hT, checkpoints};
}

Backward run_backward(const CheckCase& c, const BenchProblem& p, const ScanOptions& options,
                      const Tensor& checkpoints) {
  const auto [du, dw, dh0] =
      call_scan_backward(p.u, p.w, checkpoints, p.dy, p.dhT, c.cell, options);
  return {du, dw, dh0};
}

/// Lets its plan settle, captures it, and replays it once.
Work settle_and_capture(const Work& run, const ScanOptions& options) {
  settle(run, options);
  const Work replay = capture_graph(run);
  replay();
  torch::cuda::synchronize();
  return replay;
}

/// The passes of one problem, captured, with what the graphs leave.
struct CapturedPasses {
  Forward inference, training;
  Backward backward;
  Work replay_inference, replay_training, replay_backward;
  ScanStatistics of_inference, of_training, of_backward;

  CapturedPasses(const CheckCase& c, const BenchProblem& p) {
    const int64_t interval = checkpoint_interval_on(p.u.device());
    replay_inference =
        settle_and_capture([&, this] { inference = run_forward(c, p, c.options, 0); }, c.options);
    of_inference = last_scan_statistics().first;
    replay_training = settle_and_capture(
        [&, this, interval] { training = run_forward(c, p, c.options, interval); }, c.options);
    of_training = last_scan_statistics().first;
    replay_backward = settle_and_capture(
        [&, this] { backward = run_backward(c, p, c.options, training.checkpoints); }, c.options);
    of_backward = last_scan_statistics().second;
  }
  CapturedPasses(const CapturedPasses&) = delete;
};

/// Options that force the plan that a pass has used.
ScanOptions forced(const ScanStatistics& pass, const ScanOptions& options) {
  ScanOptions result = options;
  result.plan = pass.plan;
  if (pass.plan != "sequential") {
    result.chunk = pass.chunk;
    result.burn_in = pass.burn_in;
  }
  return result;
}

/// The same problem in the arithmetic's dtype, and its results by the plans of two passes: judged
/// at both ends of the channels.
struct WideRun {
  BenchProblem problem;
  BenchResults results;
  std::string wrong;

  WideRun(const CheckCase& c, const BenchProblem& p, const ScanStatistics& forward,
          const ScanStatistics& backward)
      : problem(p) {
    problem.u = p.u.to(p.w.scalar_type());
    problem.dy = p.dy.to(p.w.scalar_type());
    const int64_t interval = checkpoint_interval_on(p.u.device());
    const auto [y, hT, kept] = run_forward(c, problem, forced(forward, c.options), interval);
    const auto [du, dw, dh0] = run_backward(c, problem, forced(backward, c.options), kept);
    results = {{y, hT, du, dw, dh0},
               kept.slice(1, 0, kept.size(1), std::max<int64_t>(kChunkUnit / interval, 1))};
    wrong = what_is_wrong(c, problem, results, forward, backward, 1);
  }
};

/// The captured results are the roundings of those in the arithmetic's dtype, which are right.
std::string what_is_wrong(const CheckCase& c, const BenchProblem& p, const CapturedPasses& passes) {
  const auto differs = [&](const char* name, const Tensor& got, const Tensor& wide) {
    if (torch::equal(got, wide.to(got.scalar_type()))) return std::string();
    const Tensor error = (got.to(wide.scalar_type()) - wide).abs();
    return fmt::format("{} in {} is not the rounding of {} in {}; the largest difference is {:.3g}",
                       name, c.dtype, name, c10::toString(wide.scalar_type()),
                       error.max().item<double>());
  };
  const WideRun wide(c, p, passes.of_training, passes.of_backward);
  if (!wide.wrong.empty()) return wide.wrong;
  const std::array<Tensor, 5> got = {passes.training.y, passes.training.hT, passes.backward.du,
                                     passes.backward.dw, passes.backward.dh0};
  for (size_t i = 0; i < got.size(); ++i) {
    const std::string wrong = differs(kResultNames[i], got[i], wide.results.of[i]);
    if (!wrong.empty()) return wrong;
  }
  const ScanStatistics &one = passes.of_inference, &other = passes.of_training;
  if (one.plan == other.plan && one.chunk == other.chunk && one.burn_in == other.burn_in) {
    return differs("y of inference", passes.inference.y, wide.results.of[0]);
  }
  const WideRun inference(c, p, passes.of_inference, passes.of_backward);
  if (!inference.wrong.empty()) return inference.wrong;
  return differs("y of inference", passes.inference.y, inference.results.of[0]);
}

json describe_pass(const ScanStatistics& s, double us, double roof_us) {
  return {{"plan", s.plan},
          {"chunk", s.chunk},
          {"chunks", s.chunks},
          {"burn_in", s.burn_in},
          {"newton_iterations", s.newton_iterations},
          {"columns", s.columns},
          {"columns_corrected", s.columns_corrected},
          {"columns_repaired", s.columns_repaired},
          {"us", us},
          {"roof_us", roof_us}};
}

/// Through the operator with autograd, as the host launches it.
void measure_operator(const CheckCase& c, const BenchProblem& p, const GpuTimer& timer,
                      json& result) {
  const auto forward = [&] {
    torch::NoGradGuard no_grad;
    scan(p.u, p.w, p.h0, c.cell, c.options);
  };
  const Tensor u = p.u.detach().requires_grad_(), w = p.w.detach().requires_grad_();
  const Tensor h0 = p.h0.detach().requires_grad_();
  const auto both = [&] {
    const auto [y, hT] = scan(u, w, h0, c.cell, c.options);
    torch::autograd::grad({y, hT}, {u, w, h0}, {p.dy, p.dhT});
  };
  both();
  result["eager_forward_us"] = timer.microseconds(forward, Host::kIncluded);
  result["eager_forward_backward_us"] = timer.microseconds(both, Host::kIncluded);
}

}  // namespace

json measure_scan(const CheckCase& c, const std::string& regime, const GpuTimer& timer,
                  double bandwidth) {
  torch::NoGradGuard no_grad;
  const BenchProblem p = random_problem_on(torch::kCUDA, c);
  // Plans are learned for the weights' address: kept, so that no case begins with what another has
  // taught.
  static std::vector<Tensor> weights;
  weights.push_back(p.w);
  json result = describe_case(c, regime);
  const auto passes = std::make_unique<CapturedPasses>(c, p);
  const std::string wrong = what_is_wrong(c, p, *passes);
  if (!wrong.empty()) {
    result["wrong"] = wrong;
    return result;
  }
  // What has to be moved at least: u in, y out; and back u and dy in, du out.
  const double roof = double(p.u.nbytes()) / bandwidth / 1e3;
  const double forward_roof = roof + double(p.dy.nbytes()) / bandwidth / 1e3;
  const auto time = [&](const Work& replay) { return timer.microseconds(replay); };
  result["forward"] =
      describe_pass(passes->of_inference, time(passes->replay_inference), forward_roof);
  result["training_forward"] =
      describe_pass(passes->of_training, time(passes->replay_training), forward_roof);
  result["backward"] =
      describe_pass(passes->of_backward, time(passes->replay_backward), forward_roof + roof);
  if (regime == "hard") {
    // The plan of last resort, which needs no correction: no other should be slower.
    ScanOptions sequential = c.options;
    sequential.plan = "sequential";
    const Work forward = settle_and_capture([&] { run_forward(c, p, sequential, 0); }, sequential);
    result["forward"]["sequential_us"] = time(forward);
    const Work backward = settle_and_capture(
        [&] { run_backward(c, p, sequential, passes->training.checkpoints); }, sequential);
    result["backward"]["sequential_us"] = time(backward);
  }
  torch::AutoGradMode with_gradients(true);
  measure_operator(c, p, timer, result);
  return result;
}

json measure_step(const std::string& cell, int64_t batch, int64_t channels,
                  const std::string& dtype, const GpuTimer& timer) {
  torch::NoGradGuard no_grad;
  CheckCase c;
  c.cell = cell;
  c.batch = batch;
  c.steps = 1;
  c.channels = channels;
  c.dtype = dtype;
  const BenchProblem p = random_problem_on(torch::kCUDA, c);
  const Tensor u = p.u.select(1, 0);
  json result = {{"cell", cell}, {"dtype", dtype}, {"batch", batch}, {"channels", channels}};
  Tensor y, next;
  const Work run = [&] { std::tie(y, next) = step(u, p.w, p.h0, cell); };
  run();
  torch::cuda::synchronize();
  const Work replay = capture_graph(run);
  replay();

  // The first channels against the plain loop.
  const int64_t count = std::min<int64_t>(channels, 2);
  const auto part = [&](const Tensor& t) {
    return t.narrow(-1, 0, count).to(torch::kCPU, torch::kFloat32).contiguous();
  };
  const Tensor u_part = part(u), w_part = part(p.w), h_part = part(p.h0);
  Tensor y_loop = torch::empty({batch, count}), next_loop = torch::empty_like(h_part);
  cell_reference(find_cell(cell))
      .single_forward({batch, 1, count}, u_part.data_ptr<float>(), w_part.data_ptr<float>(),
                      h_part.data_ptr<float>(), y_loop.data_ptr<float>(),
                      next_loop.data_ptr<float>(), nullptr, {});
  // A unit in the last place of half precision, and some of single precision.
  const double rounding = y.element_size() == 2 ? 1.0 / 128 : 1e-5;
  if (!torch::allclose(part(y), y_loop, rounding, 1e-5) ||
      !torch::allclose(part(next), next_loop, 1e-5, 1e-5)) {
    result["wrong"] = fmt::format("one step of {} at B{} D{} in {} is not the plain loop's", cell,
                                  batch, channels, dtype);
    return result;
  }

  const size_t bytes = u.nbytes() + p.w.nbytes() + p.h0.nbytes() + y.nbytes() + next.nbytes();
  const Tensor zeros =
      torch::zeros({int64_t(bytes / 2)}, torch::dtype(torch::kUInt8).device(u.device()));
  const Tensor half = torch::empty_like(zeros);
  const Work copied = [&] { Tensor(half).copy_(zeros); };
  copied();
  result["us"] = timer.microseconds(replay);
  result["eager_us"] = timer.microseconds(run, Host::kIncluded);
  result["copy_us"] = timer.microseconds(capture_graph(copied));
  return result;
}

}  // namespace pararnn::bench
