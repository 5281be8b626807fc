#include "bench/baselines.hpp"

#include <torch/autograd.h>
#include <torch/nn/modules/rnn.h>

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "bench/ssd.hpp"
#include "bench/torch_loop.hpp"
#include "cells/cell_registry.hpp"

namespace pararnn::bench {
namespace {

using torch::Tensor;

Tensor leaf(const Tensor& t) { return t.detach().requires_grad_(); }

Baseline loop_of_ops(const std::string& name, const BenchShape& shape, torch::ScalarType dtype,
                     torch::Device device) {
  const CellDefinition& cell = find_cell(name);
  const auto options = torch::dtype(dtype).device(device);
  const auto [B, T, D] = shape;
  const Tensor u = leaf(torch::randn({B, T, cell.inputs, D}, options));
  const Tensor w = leaf(2 * torch::rand({cell.params, D}, options) - 1);
  const Tensor h0 = leaf(torch::rand({B, cell.state, D}, options) + 0.1);
  return {[=] { return std::get<0>(torch_loop(name, u, w, h0)); },
          {u, w, h0},
          torch::randn({B, T, D}, options)};
}

/// One dense layer, its input projection included; cuDNN's on a GPU.
template <class Network, class Options>
Baseline dense(const BenchShape& shape, torch::ScalarType dtype, torch::Device device) {
  const auto [B, T, D] = shape;
  Network network(Options(D, D).batch_first(true));
  network->to(device, dtype);
  const auto options = torch::dtype(dtype).device(device);
  const Tensor x = leaf(torch::randn({B, T, D}, options));
  std::vector<Tensor> leaves = network->parameters();
  leaves.push_back(x);
  return {[=]() mutable { return std::get<0>(network->forward(x)); }, leaves,
          torch::randn({B, T, D}, options)};
}

Baseline dense_network(const std::string& cell, const BenchShape& shape, torch::ScalarType dtype,
                       torch::Device device) {
  require(cell == "gru" || cell == "lstm", "there is no dense {}; there are gru and lstm", cell);
  return cell == "gru" ? dense<torch::nn::GRU, torch::nn::GRUOptions>(shape, dtype, device)
                       : dense<torch::nn::LSTM, torch::nn::LSTMOptions>(shape, dtype, device);
}

/// Channels of a head, where all channels make whole heads.
int64_t head_width(int64_t channels, int64_t wanted) {
  return channels % wanted == 0 ? wanted : channels;
}

/// Causal, in heads of 128 channels, on given queries, keys and values.
Baseline attention(const std::string&, const BenchShape& shape, torch::ScalarType dtype,
                   torch::Device device) {
  const auto [B, T, D] = shape;
  const int64_t width = head_width(D, 128);
  const auto random = [&, B = B, T = T, D = D] {
    return torch::randn({B, D / width, T, width}, torch::dtype(dtype).device(device));
  };
  const Tensor q = leaf(random()), k = leaf(random()), v = leaf(random());
  return {[=] { return at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true); },
          {q, k, v},
          random()};
}

/// Heads of 64 channels, 128 state components, chunks of 128 steps.
Baseline state_space(const std::string&, const BenchShape& shape, torch::ScalarType dtype,
                     torch::Device device) {
  constexpr int64_t kComponents = 128, kChunk = 128;
  const auto [B, T, D] = shape;
  const int64_t width = head_width(D, 64), heads = D / width;
  const auto options = torch::dtype(dtype).device(device);
  const Tensor x = leaf(torch::randn({B, T, heads, width}, options));
  const Tensor dt = leaf(0.1 * torch::rand({B, T, heads}, options));
  const Tensor a = leaf(-1 - torch::rand({heads}, options));
  const Tensor b = leaf(torch::randn({B, T, kComponents}, options));
  const Tensor c = leaf(torch::randn({B, T, kComponents}, options));
  return {[=, steps = T] { return ssd(x, dt, a, b, c, std::min(kChunk, steps)); },
          {x, dt, a, b, c},
          torch::randn({B, T, heads, width}, options)};
}

}  // namespace

void Baseline::forward() const {
  torch::NoGradGuard no_grad;
  run();
}

void Baseline::forward_backward() const {
  // A cell may have no parameters, or not use an input.
  torch::autograd::grad({run()}, leaves, {gradient}, /*retain_graph=*/std::nullopt,
                        /*create_graph=*/false, /*allow_unused=*/true);
}

std::span<const BaselineKind> baseline_kinds() {
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  static constexpr BaselineKind kKinds[] = {
      {"loop of ops", true, 1, false, kAny, &loop_of_ops},
      // Some fifty kernels a step, forward and backward, are in the graph at once.
      {"loop of ops in a CUDA graph", true, 1, true, 2048, &loop_of_ops},
      {"cuDNN, dense", true, 1, false, kAny, &dense_network},
      {"attention", false, 2, true, kAny, &attention},
      {"SSD in ops", false, 1, true, kAny, &state_space},
  };
  return kKinds;
}

}  // namespace pararnn::bench
