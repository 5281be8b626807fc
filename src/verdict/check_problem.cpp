#include "verdict/check_problem.hpp"

#include <algorithm>
#include <cmath>
#include <random>

#include "cells/cell_registry.hpp"
#include "kernels/scan.hpp"
#include "pararnn/method.hpp"

namespace pararnn {
namespace {

using kernels::ScalarType;
using kernels::Tensor;
using torch::headeronly::DeviceType;
using torch::stable::Device;

ScalarType dtype_of(const std::string& name) {
  if (name == "float16") return ScalarType::Half;
  if (name == "bfloat16") return ScalarType::BFloat16;
  if (name == "float32") return ScalarType::Float;
  require(name == "float64",
          "there is no dtype '{}' here; it should be float16, bfloat16, float32 or float64", name);
  return ScalarType::Double;
}

Device device_of(const std::string& name) {
  if (name == "cpu") return Device(DeviceType::CPU);
  int index = 0;
  const bool is_gpu =
      name == "cuda" || (std::sscanf(name.c_str(), "cuda:%d", &index) == 1 && index >= 0);
  require(is_gpu, "there is no device '{}' here; it should be cpu, cuda or cuda:0", name);
  return Device(DeviceType::CUDA, index);
}

/// (B,T,N,D) has the first T of an array of (B,all,N,D) that are `step` apart.
std::vector<double> every(int64_t step, const std::vector<double>& values, int64_t batch,
                          int64_t all) {
  if (step == 1 || all == 0) return values;
  const auto row = int64_t(values.size()) / std::max<int64_t>(batch * all, 1);
  std::vector<double> result;
  for (int64_t i = 0; i < batch * all; ++i) {
    if (i % all % step != 0) continue;
    result.insert(result.end(), values.begin() + i * row, values.begin() + (i + 1) * row);
  }
  return result;
}

std::vector<double> host_numbers(const Tensor& t) {
  const Tensor wide = torch::stable::contiguous(
      torch::stable::to(t, ScalarType::Double, std::nullopt, Device(DeviceType::CPU)));
  const double* data = wide.const_data_ptr<double>();
  return {data, data + wide.numel()};
}

}  // namespace

CheckProblem random_problem(const CheckCase& check) {
  require(std::isfinite(check.weight_scale) && std::isfinite(check.gate_bias),
          "weights of scale {} and a gate bias of {} cannot be checked; both should be finite",
          check.weight_scale, check.gate_bias);
  const CellDefinition& cell = find_cell(check.cell);
  const ScalarType type = dtype_of(check.dtype), arithmetic = kernels::arithmetic_type(type);
  const Device device = device_of(check.device);
  std::mt19937_64 generator(check.seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(0, 1);
  const std::array<int64_t, 1> one{1};
  const Tensor like = torch::stable::empty({one.data(), 1}, ScalarType::Double);
  const auto tensor = [&](kernels::Shape shape, ScalarType of, const auto& number) {
    const Tensor values = kernels::make_tensor("a random problem", shape, ScalarType::Double, like);
    double* data = values.mutable_data_ptr<double>();
    for (int64_t i = 0; i < values.numel(); ++i) data[i] = number(i);
    return torch::stable::to(values, of, std::nullopt, device);
  };
  const auto any = [&](int64_t) { return normal(generator); };
  const int64_t B = check.batch, T = check.steps, D = check.channels;
  const auto input = [&](int64_t i) {
    return normal(generator) + (i / D % cell.inputs == 0 ? check.gate_bias : 0);
  };
  const auto weight = [&](int64_t) { return check.weight_scale * (2 * uniform(generator) - 1); };
  const auto state = [&](int64_t) { return 0.1 + uniform(generator); };
  return {tensor({B, T, cell.inputs, D}, type, input), tensor({cell.params, D}, arithmetic, weight),
          tensor({B, cell.state, D}, arithmetic, state), tensor({B, T, D}, type, any),
          tensor({B, cell.state, D}, arithmetic, any)};
}

CheckProblem in_arithmetic_of(const CheckProblem& problem) {
  CheckProblem result = problem;
  result.u = torch::stable::to(problem.u, problem.w.scalar_type());
  result.dy = torch::stable::to(problem.dy, problem.w.scalar_type());
  return result;
}

CheckResults run_problem(const CheckCase& check, const CheckProblem& a) {
  const CellDefinition& cell = find_cell(check.cell);
  const int64_t interval = kernels::checkpoint_interval_on(a.u);
  const auto forward =
      kernels::scan_forward(a.u, a.w, a.h0, cell, check.options, {.checkpoint_interval = interval});
  const auto backward =
      kernels::scan_backward(a.u, a.w, *forward.checkpoints, a.dy, a.dhT, cell,
                             kernels::adjoint_options(check.options, forward.remembers));
  return {forward.y,    forward.hT,           backward.du, backward.dw,
          backward.dh0, *forward.checkpoints, interval};
}

ProblemNumbers numbers_of(const CheckProblem& p) {
  return {{p.dy.size(0), p.dy.size(1), p.dy.size(2)},
          host_numbers(p.u),
          host_numbers(p.w),
          host_numbers(p.h0),
          host_numbers(p.dy),
          host_numbers(p.dhT)};
}

ResultNumbers numbers_of(const CheckResults& r) {
  return {{host_numbers(r.y), host_numbers(r.hT), host_numbers(r.du), host_numbers(r.dw),
           host_numbers(r.dh0)},
          // The device may keep more than the bounds look at.
          every(kChunkUnit / r.checkpoint_interval, host_numbers(r.checkpoints),
                r.checkpoints.size(0), r.checkpoints.size(1))};
}

}  // namespace pararnn
