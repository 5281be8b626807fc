// A cell of one's own, run by the chunked kernels and by the plain loop, with the engine's headers
// alone: g++ -std=c++20 -O3 -march=native -Iinclude examples/custom_cell.cpp
//
// Prints how far the two are apart, and exits 1 if that is more than the tolerance.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "pararnn/cpu/kernels.hpp"
#include "pararnn/cpu/scan_backward.hpp"
#include "pararnn/cpu/scan_forward.hpp"
#include "pararnn/reference.hpp"

namespace example {

using namespace pararnn;

/// h ← h + σ(u_0) (tanh(u_1 + w h) − h)
struct LeakyIntegrator {
  static constexpr int kState = 1, kInputs = 2, kParams = 1;

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 1>& w) {
    const T rate = sigmoid(u[0]);
    return {h[0] + rate * (tanh(u[1] + w[0] * h[0]) - h[0])};
  }
};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max<double>(largest, std::abs(double(a[i]) - b[i]));
  }
  return largest;
}

int run() {
  using Cell = LeakyIntegrator;
  constexpr std::int64_t kBatch = 2, kSteps = 4096, kChannels = 8;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto normals = [&](std::int64_t count) {
    std::vector<float> v(count);
    for (float& x : v) x = normal(random);
    return v;
  };
  const std::vector<float> u = normals(kBatch * kSteps * Cell::kInputs * kChannels);
  const std::vector<float> w = normals(Cell::kParams * kChannels);
  const std::vector<float> dy = normals(kBatch * kSteps * kChannels);
  const std::vector<float> zeros(kBatch * Cell::kState * kChannels);

  // The plain loop.
  std::vector<float> y_loop(dy.size()), hT_loop(zeros.size());
  std::vector<float> du_loop(u.size()), dw_loop(w.size()), dh0_loop(zeros.size());
  const Shape shape{kBatch, kSteps, kChannels};
  reference_forward<Cell>(shape, u.data(), w.data(), zeros.data(), y_loop.data(), hT_loop.data());
  reference_backward<Cell>(shape, u.data(), w.data(), zeros.data(), dy.data(), zeros.data(),
                           du_loop.data(), dw_loop.data(), dh0_loop.data());

  // The chunked kernels: eight channels do not fill the lanes, so the plan cuts the sequence.
  const auto kernels = cpu::make_kernels<Cell, float>();
  const Plan plan = make_plan({kBatch, kSteps, kChannels, kernels.lanes, 2});
  std::vector<float> y(dy.size()), hT(zeros.size()), du(u.size()), dw(w.size()), dh0(zeros.size());
  std::vector<float> checkpoints(kBatch * (kSteps / cpu::kCheckpointInterval) * Cell::kState *
                                 kChannels);
  const auto view = [&](const std::vector<float>& data, std::int64_t components) {
    return cpu::TensorView{const_cast<float*>(data.data()),
                           cpu::Storage::kFloat32,
                           kSteps * components * kChannels,
                           components * kChannels,
                           kChannels,
                           0,
                           kChannels};
  };
  cpu::ForwardProblem<float> problem{};
  problem.size = {kBatch, kSteps, kChannels, 0, 0, 0};
  problem.u = view(u, Cell::kInputs);
  problem.y = view(y, 1);
  problem.w = w.data();
  problem.hT = hT.data();
  problem.checkpoints = checkpoints.data();
  problem.tolerance = kDefaultTolerance<float>;
  const cpu::Executor executor = cpu::serial_executor();
  const Statistics forward = cpu::scan_forward(kernels, executor, problem, plan);

  cpu::BackwardProblem<float> adjoint{};
  adjoint.size = {kBatch, kSteps, kChannels, 0, 0, 0};
  adjoint.u = view(u, Cell::kInputs);
  adjoint.dy = view(dy, 1);
  adjoint.du = view(du, Cell::kInputs);
  adjoint.w = w.data();
  adjoint.checkpoints = checkpoints.data();
  adjoint.dhT = zeros.data();
  adjoint.dh0 = dh0.data();
  adjoint.dw = dw.data();
  adjoint.tolerance = kDefaultTolerance<float>;
  cpu::scan_backward(kernels, executor, adjoint, plan);

  const double y_error = largest_difference(y, y_loop);
  const double du_error = largest_difference(du, du_loop);
  std::printf("plan %s, %lld chunks of %lld steps, %lld of %lld columns corrected\n",
              std::string(way_name(plan.way)).c_str(), (long long)plan.chunks,
              (long long)plan.chunk, (long long)forward.columns_corrected,
              (long long)forward.columns);
  std::printf("largest difference from the plain loop: y %.1e, du %.1e\n", y_error, du_error);
  return y_error < 1e-5 && du_error < 1e-4 ? 0 : 1;
}

}  // namespace example

int main() { return example::run(); }
