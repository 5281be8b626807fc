#include "verdict/check_case.hpp"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <limits>

#include "base/error.hpp"
#include "cells/cell_reference.hpp"
#include "cells/cell_registry.hpp"
#include "kernels/scan_statistics.hpp"
#include "verdict/check_problem.hpp"

namespace pararnn {
namespace {

using Numbers = std::vector<double>;

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

Deviation deviation(const Numbers& got, const BoundedArray& expected) {
  Deviation result;
  for (size_t i = 0; i < expected.value.size(); ++i) {
    result = larger(result, deviation(std::abs(got[i] - expected.value[i]), expected.bound[i]));
  }
  return result;
}

std::array<Deviation, 5> deviations(const ResultNumbers& got, const BoundedResult& expected) {
  return {deviation(got.of[0], expected.y), deviation(got.of[1], expected.hT),
          deviation(got.of[2], expected.du), deviation(got.of[3], expected.dw),
          deviation(got.of[4], expected.dh0)};
}

/// A dtype's numbers: rounding to them, and what it may do.
struct NumberFormat {
  double (*round)(double);
  double unit, smallest, largest;  // of a rounding, half a subnormal, and before infinity
};
NumberFormat format_of(const std::string& dtype) {
  using torch::headeronly::BFloat16, torch::headeronly::Half;
  constexpr double kLargestFloat = std::numeric_limits<float>::max();
  const auto to_half = [](double x) { return double(float(Half(float(x)))); };
  const auto to_bfloat16 = [](double x) { return double(float(BFloat16(float(x)))); };
  const auto to_itself = [](double x) { return x; };
  if (dtype == "bfloat16") return {to_bfloat16, 0x1p-8, 0, kLargestFloat};
  if (dtype == "float16") return {to_half, 0x1p-11, 0x1p-25, 65504};
  return {to_itself, 0, 0, kLargestFloat};
}

/// Each number of half results is the rounding of the single one, whose arithmetic it shares; or,
/// where a compiler has fused products and sums of the two in different ways, the rounding of
/// another number within the bounds.
bool half_is_right(const ResultNumbers& half, const std::string& dtype, const ResultNumbers& single,
                   const BoundedResult& loop) {
  const BoundedArray* arrays[] = {&loop.y, &loop.hT, &loop.du, &loop.dw, &loop.dh0};
  for (size_t i = 0; i < half.of.size(); ++i) {
    const bool is_half = i == 0 || i == 2;  // y and du; the others are in the arithmetic's dtype
    const auto [round, unit, smallest, largest] = format_of(is_half ? dtype : "float32");
    for (size_t k = 0; k < half.of[i].size(); ++k) {
      const double a = half.of[i][k], b = round(single.of[i][k]);
      if (a == b || (std::isnan(a) && std::isnan(b))) continue;
      const double value = arrays[i]->value[k], bound = arrays[i]->bound[k];
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
void check_states(const Numbers& value, const BoundedResult& expected, const Shape& shape,
                  int state, int64_t chunk, double tolerance, CheckReport& report) {
  const int64_t count = (shape.steps + kChunkUnit - 1) / kChunkUnit;
  for (int64_t i = 0; i < std::ssize(value); ++i) {
    const int64_t t = i / (shape.channels * state) % count * kChunkUnit;
    const double error = std::abs(value[size_t(i)] - expected.states.value[size_t(i)]);
    const double rounding = expected.states.bound[size_t(i)];
    if (t == 0) continue;
    if (t % chunk == 0) {
      const double mismatch = tolerance * (1 + std::abs(expected.states.value[size_t(i)]));
      report.boundary = larger(report.boundary, deviation(error, rounding + mismatch));
    } else {
      report.step = larger(report.step, deviation(error, rounding));
    }
  }
}

/// The largest error of y by the plain loop in float32.
double error_of_single_loop(const CellDefinition& cell, const ProblemNumbers& a,
                            const BoundedResult& expected) {
  const auto single = [](const Numbers& of) { return std::vector<float>(of.begin(), of.end()); };
  const std::vector<float> u = single(a.u), w = single(a.w), h0 = single(a.h0);
  std::vector<float> y(a.dy.size()), hT(h0.size());
  cell_reference(cell).single_forward(a.shape, u.data(), w.data(), h0.data(), y.data(), hT.data(),
                                      nullptr, {});
  return deviation(Numbers(y.begin(), y.end()), expected.y).error;
}

}  // namespace

double CheckReport::worst() const {
  double result = std::max(step.of_permitted, boundary.of_permitted);
  for (const auto* deviations : {&from_loop, &from_trajectory}) {
    for (const Deviation& d : *deviations) result = std::max(result, d.of_permitted);
  }
  return result;
}

CheckReport judge(const CheckCase& check, const ProblemNumbers& problem,
                  const ResultNumbers& results, const ScanStatistics& forward,
                  const ScanStatistics& backward, const ResultNumbers* half) {
  CheckReport report;
  report.forward = forward;
  report.backward = backward;
  const Shape& shape = problem.shape;
  const CellDefinition& cell = find_cell(check.cell);
  const bool twice = check.dtype == "float64";
  const double tolerance = check.options.tolerance > 0 ? check.options.tolerance
                           : twice                     ? kDefaultTolerance<double>
                                                       : kDefaultTolerance<float>;
  const int64_t whole = std::max<int64_t>(shape.steps, 1);
  const Permitted permitted{forward.chunk > 0 ? forward.chunk : whole,
                            backward.chunk > 0 ? backward.chunk : whole, tolerance};
  const CellReference& reference = cell_reference(cell);
  const auto bounds = [&](const Trajectory* follow) {
    return (twice ? reference.double_bounds : reference.single_bounds)(
        shape, problem.u.data(), problem.w.data(), problem.h0.data(), problem.dy.data(),
        problem.dhT.data(), permitted, follow, {});
  };
  const Trajectory trajectory{results.of[0].data(), results.checkpoints.data()};
  auto along_trajectory = std::async(std::launch::async, [&] { return bounds(&trajectory); });
  const BoundedResult loop = bounds(nullptr);
  const BoundedResult own = along_trajectory.get();

  report.from_loop = deviations(results, loop);
  if (half) report.rounded_right = half_is_right(*half, check.dtype, results, loop);
  report.from_trajectory = deviations(results, own);
  report.step = report.from_trajectory[0];
  check_states(results.checkpoints, own, shape, cell.state, permitted.forward_chunk, tolerance,
               report);
  if (!twice) report.loop_error = error_of_single_loop(cell, problem, loop);
  int64_t predictable = 0;
  for (const double bound : loop.y.bound) predictable += bound < 1e-2;
  if (!loop.y.bound.empty()) report.predictable = double(predictable) / double(loop.y.bound.size());
  return report;
}

CheckReport run_check(const CheckCase& wanted) {
  CheckCase check = wanted;
  const CheckProblem problem = random_problem(check);
  ResultNumbers results = numbers_of(run_problem(check, problem));
  if (problem.u.is_cuda() && check.options.plan == "auto") {
    // Every call may choose another plan there, and what is compared below must have the same.
    const ScanStatistics chosen = last_scan_statistics().first;
    if (!chosen.plan.empty()) {
      check.options.plan = chosen.plan;
      check.options.chunk = chosen.chunk;
      check.options.burn_in = chosen.burn_in;
      results = numbers_of(run_problem(check, problem));
    }
  }
  const auto [forward, backward] = last_scan_statistics();
  const ProblemNumbers numbers = numbers_of(problem);
  if (problem.u.scalar_type() == problem.w.scalar_type()) {
    return judge(check, numbers, results, forward, backward);
  }
  const ResultNumbers in_arithmetic = numbers_of(run_problem(check, in_arithmetic_of(problem)));
  return judge(check, numbers, in_arithmetic, forward, backward, &results);
}

}  // namespace pararnn
