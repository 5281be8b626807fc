#include "cli/bench_loops.hpp"

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "pararnn/cells.hpp"

namespace pararnn::cli {
namespace {

/// A tensor as the scalar type of a cell: the same step, in LibTorch's operations.
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
  friend N sqrt(const N& x) { return torch::sqrt(x.tensor); }
  friend N tanh(const N& x) { return torch::tanh(x.tensor); }
  friend N abs(const N& x) { return torch::abs(x.tensor); }
  friend N sigmoid(const N& x) { return torch::sigmoid(x.tensor); }
  friend N log_sigmoid(const N& x) { return torch::log_sigmoid(x.tensor); }
  friend N softplus(const N& x) { return torch::softplus(x.tensor); }
  friend N max(const N& a, const N& b) { return torch::maximum(a.tensor, b.tensor); }
  friend N min(const N& a, const N& b) { return torch::minimum(a.tensor, b.tensor); }
  friend torch::Tensor less(const N& a, const N& b) { return a.tensor < b.tensor; }
  friend torch::Tensor is_nan(const N& x) { return x.tensor.isnan(); }
  friend N select(const torch::Tensor& mask, const N& a, const N& b) {
    return torch::where(mask, a.tensor, b.tensor);
  }
};

template <Cell C>
std::tuple<torch::Tensor, torch::Tensor> run(const torch::Tensor& u, const torch::Tensor& w,
                                             const torch::Tensor& h0) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  Vec<TensorNumber, S> h{};
  for (int s = 0; s < S; ++s) h[s] = h0.select(1, s);
  Vec<TensorNumber, P> weights{};
  for (int p = 0; p < P; ++p) weights[p] = w.select(0, p);
  // One unbind in place of a select for each step: the backward pass of a select fills all of u.
  const std::vector<torch::Tensor> inputs = u.unbind(1);
  std::vector<torch::Tensor> outputs;
  outputs.reserve(inputs.size());
  for (const torch::Tensor& at_step : inputs) {
    const std::vector<torch::Tensor> parts = at_step.unbind(1);
    Vec<TensorNumber, U> input{};
    for (int i = 0; i < U; ++i) input[i] = parts[i];
    h = C::step(h, input, weights);
    outputs.push_back(h[0].tensor);
  }
  std::vector<torch::Tensor> states;
  for (int s = 0; s < S; ++s) states.push_back(h[s].tensor);
  return {torch::stack(outputs, 1), torch::stack(states, 1)};
}

}  // namespace

std::tuple<torch::Tensor, torch::Tensor> torch_loop(const std::string& cell, const torch::Tensor& u,
                                                    const torch::Tensor& w,
                                                    const torch::Tensor& h0) {
  const std::string& digest = find_cell(cell).digest;
#define PARARNN_RUN(name, Type) \
  if (digest == find_cell(#name).digest) return run<Type>(u, w, h0);
  PARARNN_CELLS(PARARNN_RUN)
#undef PARARNN_RUN
  throw Error("the loop of LibTorch operations knows the built-in cells only");
}

}  // namespace pararnn::cli
