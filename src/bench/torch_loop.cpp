#include "bench/torch_loop.hpp"

#include <algorithm>

#include "cells/cell_analysis.hpp"
#include "cells/cell_registry.hpp"

namespace pararnn::bench {
namespace {

struct TensorMask {
  torch::Tensor tensor;
  friend TensorMask operator&&(const TensorMask& a, const TensorMask& b) {
    return {a.tensor & b.tensor};
  }
  friend TensorMask operator!(const TensorMask& a) { return {a.tensor.logical_not()}; }
};

/// A tensor as the number that a cell's trace is evaluated on: the same step, in LibTorch's
/// operations.
struct TensorNumber {
  torch::Tensor tensor;

  TensorNumber() = default;
  TensorNumber(torch::Tensor t) : tensor(std::move(t)) {}
  TensorNumber(double v) : tensor(torch::scalar_tensor(v)) {}

  using N = TensorNumber;
  friend N operator+(const N& a, const N& b) { return a.tensor + b.tensor; }
  friend N operator-(const N& a, const N& b) { return a.tensor - b.tensor; }
  friend N operator*(const N& a, const N& b) { return a.tensor * b.tensor; }
  friend N operator/(const N& a, const N& b) { return a.tensor / b.tensor; }
  friend N operator-(const N& a) { return -a.tensor; }
  friend N exp(const N& x) { return torch::exp(x.tensor); }
  friend N log(const N& x) { return torch::log(x.tensor); }
  friend N log1p_unit(const N& x) { return torch::log1p(x.tensor); }
  friend N sqrt(const N& x) { return torch::sqrt(x.tensor); }
  friend N tanh(const N& x) { return torch::tanh(x.tensor); }
  friend N sin(const N& x) { return torch::sin(x.tensor); }
  friend N cos(const N& x) { return torch::cos(x.tensor); }
  friend N erf(const N& x) { return torch::erf(x.tensor); }
  friend N floor(const N& x) { return torch::floor(x.tensor); }
  friend N abs(const N& x) { return torch::abs(x.tensor); }
  friend N sigmoid(const N& x) { return torch::sigmoid(x.tensor); }
  friend N log_sigmoid(const N& x) { return torch::log_sigmoid(x.tensor); }
  friend N softplus(const N& x) { return torch::softplus(x.tensor); }
  friend N max(const N& a, const N& b) { return torch::maximum(a.tensor, b.tensor); }
  friend N min(const N& a, const N& b) { return torch::minimum(a.tensor, b.tensor); }
  friend TensorMask less(const N& a, const N& b) { return {a.tensor < b.tensor}; }
  friend TensorMask less_equal(const N& a, const N& b) { return {a.tensor <= b.tensor}; }
  friend TensorMask is_nan(const N& x) { return {x.tensor.isnan()}; }
  friend N select(const TensorMask& mask, const N& a, const N& b) {
    return torch::where(mask.tensor, a.tensor, b.tensor);
  }
};

}  // namespace

std::tuple<torch::Tensor, torch::Tensor> torch_loop(const std::string& cell_name,
                                                    const torch::Tensor& u, const torch::Tensor& w,
                                                    const torch::Tensor& h0) {
  const CellDefinition& cell = find_cell(cell_name);
  const Trace trace = cell_analysis(cell).trace();
  std::vector<TensorNumber> arguments(cell.state + cell.inputs + cell.params);
  for (int s = 0; s < cell.state; ++s) arguments[s] = h0.select(1, s);
  for (int p = 0; p < cell.params; ++p) arguments[cell.state + cell.inputs + p] = w.select(0, p);
  // One unbind in place of a select for each step: the backward pass of a select fills all of u.
  const std::vector<torch::Tensor> inputs = u.unbind(1);
  std::vector<torch::Tensor> outputs;
  outputs.reserve(inputs.size());
  for (const torch::Tensor& at_step : inputs) {
    const std::vector<torch::Tensor> parts = at_step.unbind(1);
    std::copy(parts.begin(), parts.end(), arguments.begin() + cell.state);
    const std::vector<TensorNumber> next = evaluate(trace, arguments);
    for (int s = 0; s < cell.state; ++s) {
      arguments[s] = next[s].tensor.expand_as(h0.select(1, s));  // it may be a constant
    }
    outputs.push_back(arguments[0].tensor);
  }
  std::vector<torch::Tensor> states;
  for (int s = 0; s < cell.state; ++s) states.push_back(arguments[s].tensor);
  return {torch::stack(outputs, 1), torch::stack(states, 1)};
}

}  // namespace pararnn::bench
