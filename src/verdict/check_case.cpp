#include "verdict/check_case.hpp"

#include <torch/autograd.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <limits>

#include "base/error.hpp"
#include "cells/cell_reference.hpp"
#include "cells/cell_registry.hpp"
#include "kernels/scan_arguments.hpp"
#include "ops/scan_kernels.hpp"
#include "pararnn/cpu/problem.hpp"

namespace pararnn {
namespace {

using torch::Tensor;

Tensor wide(const Tensor& t) { return t.detach().to(torch::kCPU, torch::kFloat64).contiguous(); }

Deviation larger(const Deviation& a, const Deviation& b) {
  return {std::max(a.error, b.error), std::max(a.of_permitted, b.of_permitted)};
}

/// Something that is not a number is infinitely far from any number, but right where a gradient
/// overflows.
Deviation deviation(double error, double permitted) {
  if (error == 0 || std::isnan(permitted)) return {};
  const double infinity = std::numeric_limits<double>::infinity();
  if (!(error < infinity)) return {infinity, infinity};
  return {error, error / permitted};
}

Deviation deviation(const Tensor& got, const BoundedArray& expected) {
  const Tensor values = wide(got);
  const double* value = values.const_data_ptr<double>();
  Deviation result;
  for (size_t i = 0; i < expected.value.size(); ++i) {
    result = larger(result, deviation(std::abs(value[i] - expected.value[i]), expected.bound[i]));
  }
  return result;
}

std::array<Deviation, 5> deviations(const CheckResults& got, const BoundedResult& expected) {
  return {deviation(got.of[0], expected.y), deviation(got.of[1], expected.hT),
          deviation(got.of[2], expected.du), deviation(got.of[3], expected.dw),
          deviation(got.of[4], expected.dh0)};
}

/// Each number of half results is the rounding of the single one, whose arithmetic it shares; or,
/// where a compiler has fused products and sums of the two in different ways, the rounding of
/// another number within the bounds.
bool half_is_right(const CheckResults& half, const CheckResults& single,
                   const BoundedResult& loop) {
  const BoundedArray* arrays[] = {&loop.y, &loop.hT, &loop.du, &loop.dw, &loop.dh0};
  for (size_t i = 0; i < half.of.size(); ++i) {
    const auto type = half.of[i].scalar_type();
    const Tensor got = wide(half.of[i]), rounded = wide(single.of[i].to(type));
    const double unit = type == torch::kBFloat16 ? 0x1p-8 : type == torch::kFloat16 ? 0x1p-11 : 0;
    const double smallest = type == torch::kFloat16 ? 0x1p-25 : 0;  // half a subnormal
    const double largest = type == torch::kFloat16 ? 65504 : std::numeric_limits<float>::max();
    for (int64_t k = 0; k < got.numel(); ++k) {
      const double a = got.const_data_ptr<double>()[k], b = rounded.const_data_ptr<double>()[k];
      if (a == b || (std::isnan(a) && std::isnan(b))) continue;
      const double value = arrays[i]->value[size_t(k)], bound = arrays[i]->bound[size_t(k)];
      if (!std::isfinite(bound)) continue;  // unpredictable
      const double reach = std::abs(value) + bound;
      const bool overflows = std::isinf(a) && reach >= largest;
      if (!overflows && !(std::abs(a - value) <= bound + unit * reach + smallest)) return false;
    }
  }
  return true;
}

/// The states at checkpoints against where one block of steps arrives from the checkpoint before:
/// within rounding inside a chunk, and within the tolerance besides where a chunk begins.
void check_states(const CheckResults& got, const BoundedResult& expected, const Shape& shape,
                  int state, int64_t chunk, double tolerance, CheckReport& report) {
  const Tensor values = wide(got.checkpoints);
  const double* value = values.const_data_ptr<double>();
  const int64_t count = values.size(1);
  for (int64_t i = 0; i < values.numel(); ++i) {
    const int64_t t = i / (shape.channels * state) % count * kChunkUnit;
    const double error = std::abs(value[i] - expected.states.value[i]);
    const double rounding = expected.states.bound[i];
    if (t == 0) continue;
    if (t % chunk == 0) {
      const double mismatch = tolerance * (1 + std::abs(expected.states.value[i]));
      report.boundary = larger(report.boundary, deviation(error, rounding + mismatch));
    } else {
      report.step = larger(report.step, deviation(error, rounding));
    }
  }
}

/// The largest error of y by the plain loop in float32.
double error_of_single_loop(const CheckCase& check, const Shape& shape, const CheckProblem& a,
                            const BoundedResult& expected) {
  const auto single = [](const Tensor& t) {
    return t.to(torch::kCPU, torch::kFloat32).contiguous();
  };
  const Tensor u = single(a.u), w = single(a.w), h0 = single(a.h0);
  Tensor y = torch::empty({shape.batch, shape.steps, shape.channels}), hT = torch::empty_like(h0);
  cell_reference(find_cell(check.cell))
      .single_forward(shape, u.data_ptr<float>(), w.data_ptr<float>(), h0.data_ptr<float>(),
                      y.data_ptr<float>(), hT.data_ptr<float>(), nullptr);
  return deviation(y, expected.y).error;
}

}  // namespace

double CheckReport::worst() const {
  double result = std::max(step.of_permitted, boundary.of_permitted);
  for (const auto* deviations : {&from_loop, &from_trajectory}) {
    for (const Deviation& d : *deviations) result = std::max(result, d.of_permitted);
  }
  return result;
}

torch::ScalarType dtype_of(const std::string& name) {
  if (name == "float16") return torch::kFloat16;
  if (name == "bfloat16") return torch::kBFloat16;
  if (name == "float32") return torch::kFloat32;
  require(name == "float64",
          "there is no dtype '{}' here; it should be float16, bfloat16, float32 or float64", name);
  return torch::kFloat64;
}

CheckProblem random_problem(const CheckCase& check) {
  require(std::isfinite(check.weight_scale) && std::isfinite(check.gate_bias),
          "weights of scale {} and a gate bias of {} cannot be checked; both should be finite",
          check.weight_scale, check.gate_bias);
  const CellDefinition& cell = find_cell(check.cell);
  const auto type = dtype_of(check.dtype), arithmetic = arithmetic_type(type);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(check.seed);
  const auto wide = torch::dtype(torch::kFloat64);
  const int64_t B = check.batch, T = check.steps, D = check.channels;
  Tensor u = torch::randn({B, T, cell.inputs, D}, generator, wide);
  u.select(2, 0) += check.gate_bias;
  const Tensor w = check.weight_scale * (2 * torch::rand({cell.params, D}, generator, wide) - 1);
  // Positive, as a normaliser is.
  const Tensor h0 = 0.1 + torch::rand({B, cell.state, D}, generator, wide);
  const Tensor dy = torch::randn({B, T, D}, generator, wide);
  const Tensor dhT = torch::randn({B, cell.state, D}, generator, wide);
  return {u.to(check.device, type), w.to(check.device, arithmetic), h0.to(check.device, arithmetic),
          dy.to(check.device, type), dhT.to(check.device, arithmetic)};
}

CheckResults run_problem(const CheckCase& check, const CheckProblem& a) {
  const auto leaf = [](const Tensor& t) { return t.detach().requires_grad_(); };
  const Tensor u = leaf(a.u), w = leaf(a.w), h0 = leaf(a.h0);
  const auto [y, hT] = scan(u, w, h0, check.cell, check.options);
  const auto gradients = torch::autograd::grad({y, hT}, {u, w, h0}, {a.dy, a.dhT});
  torch::NoGradGuard no_grad;
  const int64_t interval = checkpoint_interval_on(a.u.device());
  const Tensor kept =
      std::get<2>(call_scan_forward(a.u, a.w, a.h0, check.cell, check.options, interval));
  // The device may keep more than the bounds look at.
  const Tensor checkpoints = kept.slice(1, 0, kept.size(1), kChunkUnit / interval);
  return {{y.detach(), hT.detach(), gradients[0], gradients[1], gradients[2]}, checkpoints};
}

CheckReport judge(const CheckCase& check, const CheckProblem& problem, const CheckResults& results,
                  const ScanStatistics& forward, const ScanStatistics& backward,
                  const CheckResults* half) {
  CheckReport report;
  report.forward = forward;
  report.backward = backward;
  const Shape shape{problem.u.size(0), problem.u.size(1), problem.u.size(3)};
  const Tensor u = wide(problem.u), w = wide(problem.w), h0 = wide(problem.h0);
  const Tensor dy = wide(problem.dy), dhT = wide(problem.dhT);
  const Tensor y = wide(results.of[0]), checkpoints = wide(results.checkpoints);
  const auto data = [](const Tensor& t) { return t.const_data_ptr<double>(); };
  const bool twice = problem.w.scalar_type() == torch::kFloat64;
  const double tolerance = kernels::tolerance_for(check.options.tolerance, problem.w.scalar_type());
  const int64_t whole = std::max<int64_t>(shape.steps, 1);
  const Permitted permitted{forward.chunk > 0 ? forward.chunk : whole,
                            backward.chunk > 0 ? backward.chunk : whole, tolerance};
  const CellReference& reference = cell_reference(find_cell(check.cell));
  const auto bounds = [&](const Trajectory* follow) {
    return (twice ? reference.double_bounds : reference.single_bounds)(
        shape, data(u), data(w), data(h0), data(dy), data(dhT), permitted, follow);
  };
  const Trajectory trajectory{data(y), data(checkpoints)};
  auto along_trajectory = std::async(std::launch::async, [&] { return bounds(&trajectory); });
  const BoundedResult loop = bounds(nullptr);
  const BoundedResult own = along_trajectory.get();

  report.from_loop = deviations(results, loop);
  if (half) report.rounded_right = half_is_right(*half, results, loop);
  report.from_trajectory = deviations(results, own);
  report.step = report.from_trajectory[0];
  check_states(results, own, shape, int(problem.h0.size(1)), permitted.forward_chunk, tolerance,
               report);
  if (!twice) report.loop_error = error_of_single_loop(check, shape, problem, loop);
  int64_t predictable = 0;
  for (const double bound : loop.y.bound) predictable += bound < 1e-2;
  if (!loop.y.bound.empty()) report.predictable = double(predictable) / double(loop.y.bound.size());
  return report;
}

CheckReport run_check(const CheckCase& wanted) {
  CheckCase check = wanted;
  CheckProblem problem = random_problem(check);
  CheckResults results = run_problem(check, problem);
  if (problem.u.is_cuda() && check.options.plan == "auto") {
    // Every call may choose another plan there, and what is compared below must have the same.
    const ScanStatistics chosen = last_scan_statistics().first;
    if (!chosen.plan.empty()) {
      check.options.plan = chosen.plan;
      check.options.chunk = chosen.chunk;
      check.options.burn_in = chosen.burn_in;
      results = run_problem(check, problem);
    }
  }
  const auto [forward, backward] = last_scan_statistics();
  if (problem.u.scalar_type() == problem.w.scalar_type()) {
    return judge(check, problem, results, forward, backward);
  }
  const CheckResults half = results;
  problem.u = problem.u.to(problem.w.scalar_type());
  problem.dy = problem.dy.to(problem.w.scalar_type());
  return judge(check, problem, run_problem(check, problem), forward, backward, &half);
}

}  // namespace pararnn
