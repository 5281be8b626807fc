#include "bench/operators.hpp"

#include <fmt/format.h>
#include <torch/autograd.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "bench/gpu.hpp"
#include "bench/gpu_timer.hpp"
#include "bench/problem.hpp"
#include "bench/report.hpp"
#include "bench/train.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"
#include "ops/rms_norm/rms_norm.hpp"
#include "ops/rotary/rotary.hpp"
#include "ops/ssd/ssd.hpp"
#include "ops/swiglu/swiglu.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;
using torch::Tensor;
using Tensors = std::vector<Tensor>;

struct OperatorCase {
  std::string name;
  Tensors inputs;  // to differentiate by
  std::function<Tensors(const Tensors&)> run;
  Tensors kept = {};  // that the backward pass reads beside the outputs' gradients
  double forward_operations = 0, backward_operations = 0;  // of products of matrices
};

int64_t bytes_of(const Tensors& tensors) {
  int64_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

constexpr int64_t kTaps = 4, kHeadChannels = 64, kStateComponents = 128;
constexpr double kEpsilon = 1e-5;

/// Mamba2's recurrence, on parts of what its convolution gives.
OperatorCase state_space_case(const BenchShape& shape, const torch::TensorOptions& on_gpu) {
  const auto [batch, steps, channels] = shape;
  const int64_t heads = channels / kHeadChannels, n = kStateComponents;
  const auto in_float = on_gpu.dtype(torch::kFloat);
  const Tensor all = torch::randn({batch, steps, channels + 2 * n}, on_gpu);
  const auto part = [&](int64_t begin, torch::IntArrayRef shape_of_step) {
    return all.narrow(2, begin, shape_of_step[0] * shape_of_step[1])
        .unflatten(2, shape_of_step)
        .detach()
        .requires_grad_();
  };
  const Tensor x = part(0, {heads, kHeadChannels}), b = part(channels, {1, n}),
               c = part(channels + n, {1, n});
  const Tensor dt = (0.1 * torch::rand({batch, steps, heads}, in_float)).requires_grad_();
  const Tensor a = (-1 - torch::rand({heads}, in_float)).requires_grad_();
  const Tensor d = torch::ones({heads}, in_float).requires_grad_();
  // Of each step: within chunks, each of which is a matrix; into states, and out of them.
  const double tokens = double(batch * steps), of_scores = double(n * ops::ssd_chunk(steps)),
               within = double(channels * ops::ssd_chunk(steps)), of_states = double(channels * n);
  return {
      "state-space recurrence",
      {x, dt, a, b, c, d},
      [](const Tensors& t) { return Tensors{ops::ssd(t[0], t[1], t[2], t[3], t[4], t[5]).first}; },
      {x, dt, b, c},
      2 * tokens * (of_scores + within + 2 * of_states),
      2 * tokens * (3 * of_scores + 2 * within + 5 * of_states)};
}

std::vector<OperatorCase> cases_at(const BenchShape& shape, torch::ScalarType dtype) {
  const auto [batch, steps, channels] = shape;
  const auto on_gpu = torch::dtype(dtype).device(torch::kCUDA);
  const auto numbers = [&](torch::IntArrayRef sizes, const torch::TensorOptions& options) {
    return torch::randn(sizes, options).requires_grad_();
  };
  const auto in_float = on_gpu.dtype(torch::kFloat);
  const Tensor x = numbers({batch, steps, channels}, on_gpu);
  const Tensor y = numbers({batch, steps, channels}, on_gpu);
  const Tensor wide = numbers({batch, steps, 2 * channels}, on_gpu);
  const Tensor weight = numbers({channels}, in_float), scale = numbers({channels}, in_float);
  const Tensor taps = numbers({kTaps, channels}, in_float);
  const Tensor before = torch::zeros({batch, kTaps - 1, channels}, on_gpu);
  const Tensor reset = torch::rand({batch, steps}, torch::kCUDA) < 0.001;
  const auto heads = [batch, steps, channels](const Tensor& t) {
    return t.view({batch, steps, -1, std::gcd(channels, kHeadChannels)});
  };
  const Tensor positions = ops::positions_of(steps, torch::kCUDA);
  std::vector<OperatorCase> cases{
      {"residual and RMSNorm",
       {x, scale, y, weight},
       [dtype](const Tensors& t) {
         const auto [sum, normed] = ops::add_rms_norm(t[0], t[1], t[2], t[3], kEpsilon, dtype);
         return Tensors{sum, normed};
       },
       {x, y}},
      {"RMSNorm and gate",
       {x, weight, y},
       [dtype](const Tensors& t) {
         return Tensors{ops::rms_norm(t[0], t[1], kEpsilon, dtype, t[2])};
       },
       {x, y}},
      {"SwiGLU", {wide}, [](const Tensors& t) { return Tensors{ops::swiglu(t[0])}; }, {wide}},
      {"causal convolution",
       {x, taps},
       [before](const Tensors& t) { return Tensors{ops::causal_convolution(t[0], t[1], before)}; },
       {x}},
      {"causal convolution, rows start anew",
       {x, taps},
       [before, reset](const Tensors& t) {
         return Tensors{ops::causal_convolution(t[0], t[1], before, reset)};
       },
       {x}}};
  cases.push_back({"RMSNorm behind the gate",
                   {x, weight, y},
                   [dtype](const Tensors& t) {
                     return Tensors{
                         ops::rms_norm(t[0], t[1], kEpsilon, dtype, t[2], ops::NormGate::kBefore)};
                   },
                   {x, y}});
  cases.push_back({"causal convolution, bias and silu",
                   {x, taps, scale},
                   [before](const Tensors& t) {
                     return Tensors{ops::causal_convolution(t[0], t[1], before, {}, t[2])};
                   },
                   {x}});
  if (channels % kHeadChannels == 0) cases.push_back(state_space_case(shape, on_gpu));
  if (channels % 2 == 0) {
    cases.push_back({"rotary", {x, y}, [heads, positions](const Tensors& t) {
                       const auto [q, k] = ops::rotary(heads(t[0]), heads(t[1]), positions);
                       return Tensors{q, k};
                     }});
  }
  return cases;
}

}  // namespace

json measure_operators(const BenchOptions& options) {
  const GpuTimer timer;
  const double bandwidth = gpu_copy_bandwidth(timer);
  const torch::ScalarType dtype = dtype_of(options.dtype);
  // Of products in half precision.
  const double peak = c10::elementSize(dtype) == 2
                          ? peak_operations(describe_gpu().at("processor").get<std::string>())
                          : 0;
  json measurements = json::array();
  print(operators_table_header());
  for (const BenchShape& shape : options.shapes) {
    for (const OperatorCase& c : cases_at(shape, dtype)) {
      const auto forward = [&] {
        const torch::NoGradGuard no_grad;
        c.run(c.inputs);
      };
      const Tensors results = c.run(c.inputs);
      Tensors gradients;
      for (const Tensor& result : results) gradients.push_back(torch::randn_like(result));
      const auto backward = [&] {
        torch::autograd::grad(results, c.inputs, gradients, /*retain_graph=*/true);
      };
      // Forward reads the inputs and writes the results; backward reads what was kept and the
      // results' gradients and writes those of the inputs. Or the products take longer.
      const auto roof = [&](int64_t bytes, double operations) {
        return std::max(double(bytes) / bandwidth / 1e3, peak > 0 ? operations / peak * 1e6 : 0);
      };
      const double forward_roof =
          roof(bytes_of(c.inputs) + bytes_of(results), c.forward_operations);
      const double backward_roof =
          roof(bytes_of(c.kept) + bytes_of(gradients) + bytes_of(c.inputs), c.backward_operations);
      forward();
      backward();
      const double forward_us = timer.microseconds(forward);
      const double backward_us = timer.microseconds(backward);
      measurements.push_back({{"name", c.name},
                              {"dtype", options.dtype},
                              {"batch", shape.batch},
                              {"steps", shape.steps},
                              {"channels", shape.channels},
                              {"copy_gigabytes_per_second", bandwidth},
                              {"forward_us", forward_us},
                              {"forward_of_roof", forward_us / forward_roof},
                              {"backward_us", backward_us},
                              {"backward_of_roof", backward_us / backward_roof}});
      print(operators_table_row(measurements.back()));
    }
  }
  return measurements;
}

std::string operators_table_header() {
  return "| operator | dtype | shape | forward, µs | of the roof | backward, µs | of the roof "
         "|\n|---|---|---|--:|--:|--:|--:|\n";
}

std::string operators_table_row(const json& m) {
  return fmt::format("| {} | {} | B{} T{} D{} | {:.0f} | {:.2f}x | {:.0f} | {:.2f}x |\n",
                     m.at("name").get<std::string>(), m.at("dtype").get<std::string>(),
                     m.at("batch").get<int64_t>(), m.at("steps").get<int64_t>(),
                     m.at("channels").get<int64_t>(), m.at("forward_us").get<double>(),
                     m.at("forward_of_roof").get<double>(), m.at("backward_us").get<double>(),
                     m.at("backward_of_roof").get<double>());
}

}  // namespace pararnn::bench
