// A cell of one's own, given as text, run forward and backward by the library's operators.
//
// Prints the sizes, how far the result is from a step-by-step loop, and what the scan did; exits 1
// if they differ.
#include <torch/types.h>
#include <torch/utils.h>

#include <cells/cell_registry.hpp>
#include <cstdio>
#include <ops/scan/scan.hpp>

constexpr const char* kText = R"(
#include "pararnn/cell.hpp"
struct Leaky {
  static constexpr int kState = 1, kInputs = 2, kParams = 1;
  template <class T>
  PARARNN_FN static pararnn::Vec<T, 1> step(const pararnn::Vec<T, 1>& h,
                                            const pararnn::Vec<T, 2>& u,
                                            const pararnn::Vec<T, 1>& w) {
    const T rate = sigmoid(u[0]);
    return {(1 - rate) * h[0] + rate * tanh(u[1] + w[0] * h[0])};
  }
};
)";

int main() {
  const pararnn::CellDefinition& cell = pararnn::register_cell(pararnn::define_cell(kText));
  constexpr int64_t kBatch = 2, kSteps = 1000, kChannels = 16;
  torch::manual_seed(0);
  const auto u = torch::randn({kBatch, kSteps, cell.inputs, kChannels}).requires_grad_();
  const auto w = (0.5 * torch::randn({cell.params, kChannels})).requires_grad_();
  const auto [y, hT] = pararnn::scan(u, w, std::nullopt, cell.key());
  y.square().mean().backward();

  torch::NoGradGuard no_grad;
  torch::Tensor h = torch::zeros({kBatch, kChannels}), worst = torch::zeros({});
  for (int64_t t = 0; t < kSteps; ++t) {
    const auto rate = torch::sigmoid(u.select(1, t).select(1, 0));
    h = (1 - rate) * h + rate * torch::tanh(u.select(1, t).select(1, 1) + w[0] * h);
    worst = torch::maximum(worst, (h - y.select(1, t)).abs().max());
  }
  const auto statistics = pararnn::last_scan_statistics().first;
  std::printf("%s: %d state, %d inputs, %d weights a channel\n", cell.name.c_str(), cell.state,
              cell.inputs, cell.params);
  std::printf("plan %s, %lld chunks; largest difference from the loop %.1e; |dL/dw| %.1e\n",
              statistics.plan.c_str(), static_cast<long long>(statistics.chunks),
              worst.item<double>(), w.grad().norm().item<double>());
  return worst.item<double>() < 1e-5 && w.grad().norm().item<double>() > 0 ? 0 : 1;
}
