#include "bench/problem.hpp"

#include <fmt/format.h>
#include <torch/autograd.h>

#include <algorithm>
#include <functional>
#include <future>
#include <utility>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "ops/scan/scan.hpp"
#include "ops/scan/scan_kernels.hpp"
#include "train/memory.hpp"

namespace pararnn::bench {
namespace {

using torch::Tensor;
using Numbers = std::pair<ProblemNumbers, ResultNumbers>;

/// Some channels of all tensors, on the host.
Numbers narrow(const BenchProblem& p, const BenchResults& r, int64_t first, int64_t count) {
  const auto part = [&](const Tensor& t) {
    const Tensor values = t.narrow(-1, first, count).to(torch::kCPU, torch::kFloat64).contiguous();
    const double* data = values.const_data_ptr<double>();
    return std::vector<double>(data, data + values.numel());
  };
  ResultNumbers results{{}, part(r.checkpoints)};
  for (size_t i = 0; i < r.of.size(); ++i) results.of[i] = part(r.of[i]);
  return {{{p.dy.size(0), p.dy.size(1), count},
           part(p.u),
           part(p.w),
           part(p.h0),
           part(p.dy),
           part(p.dhT)},
          results};
}

}  // namespace

torch::ScalarType dtype_of(const std::string& name) {
  if (name == "float16") return torch::kFloat16;
  if (name == "bfloat16") return torch::kBFloat16;
  if (name == "float32") return torch::kFloat32;
  require(name == "float64",
          "there is no dtype '{}' here; it should be float16, bfloat16, float32 or float64", name);
  return torch::kFloat64;
}

BenchProblem random_problem_on(torch::Device device, const CheckCase& c) {
  const CellDefinition& cell = find_cell(c.cell);
  const auto type = dtype_of(c.dtype), arithmetic = arithmetic_type(type);
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(c.seed);
  const auto options = torch::dtype(type).device(device);
  const auto wide = torch::dtype(arithmetic).device(device);
  const auto normal = [&](torch::IntArrayRef size, const torch::TensorOptions& of) {
    return torch::empty(size, of).normal_(0, 1, generator);
  };
  const auto uniform = [&](torch::IntArrayRef size, double low, double high) {
    return torch::empty(size, wide).uniform_(low, high, generator);
  };
  const int64_t B = c.batch, T = c.steps, D = c.channels;
  train::require_memory(train::scan_memory(c.cell, B, T, D, double(c10::elementSize(type))),
                        device);
  const Tensor u = normal({B, T, cell.inputs, D}, options);
  u.select(2, 0) += c.gate_bias;
  return {u, uniform({cell.params, D}, -c.weight_scale, c.weight_scale),
          uniform({B, cell.state, D}, 0.1, 1.1), normal({B, T, D}, options),
          normal({B, cell.state, D}, wide)};
}

BenchResults run_problem(const CheckCase& check, const BenchProblem& a) {
  const auto leaf = [](const Tensor& t) { return t.detach().requires_grad_(); };
  const Tensor u = leaf(a.u), w = leaf(a.w), h0 = leaf(a.h0);
  const auto [y, hT] = scan(u, w, h0, check.cell, check.options);
  const auto gradients = torch::autograd::grad({y, hT}, {u, w, h0}, {a.dy, a.dhT});
  torch::NoGradGuard no_grad;
  const int64_t interval = checkpoint_interval_on(a.u.device());
  const Tensor kept =
      std::get<2>(call_scan_forward(a.u, a.w, a.h0, check.cell, check.options, interval));
  return {{y.detach(), hT.detach(), gradients[0], gradients[1], gradients[2]},
          kept.slice(1, 0, kept.size(1), kChunkUnit / interval)};
}

std::string what_is_wrong(const CheckCase& c, const BenchProblem& problem,
                          const BenchResults& results, const ScanStatistics& forward,
                          const ScanStatistics& backward, int64_t channels) {
  const int64_t count = std::min(c.channels, channels);
  // Taken here: another thread has another current stream, which would not wait for the results.
  const auto first = narrow(problem, results, 0, count);
  const auto last = narrow(problem, results, c.channels - count, count);
  const auto judged = [&](const Numbers& part) {
    return judge(c, part.first, part.second, forward, backward);
  };
  auto at_the_end = std::async(std::launch::async, judged, std::cref(last));
  const double worst = std::max(judged(first).worst(), at_the_end.get().worst());
  if (worst <= 1) return "";
  return fmt::format(
      "{} at B{} T{} D{}, weights ±{:g}, gate bias {:g}: the result is off by {:.3g} times what is "
      "permitted; see pararnn check",
      c.cell, c.batch, c.steps, c.channels, c.weight_scale, c.gate_bias, worst);
}

}  // namespace pararnn::bench
