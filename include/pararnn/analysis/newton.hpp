// How many Newton corrections does a sequence cut into chunks need until all boundaries pass? The
// iteration is the engine's (cpu/forward.hpp), without its limit and its repair:
//
//   delta_{p+1} = M_p delta_p + F_p(b_p) - b_{p+1},  b_{p+1} <- b_{p+1} + delta_{p+1}
//
// With P chunks, P - 1 corrections always suffice: after k of them the first k + 1 chunks are
// exact. So a number close to P - 1 says that nothing ran in parallel.
#pragma once

#include "pararnn/analysis/channel.hpp"

namespace pararnn {

struct NewtonRequest {
  std::int64_t steps = 4096, chunk = 64, burn_in = 64;
  double tolerance = 1e-6;
  int most = 32;  // corrections after which to give up
};

/// The corrections that a channel needs; -1 if `most` do not suffice.
template <class T>
int newton_corrections(const CellAnalysis& cell, const CellFunctions<T>& functions,
                       const std::vector<T>& inputs, const std::vector<T>& weights,
                       const NewtonRequest& request) {
  const auto S = static_cast<std::size_t>(cell.state), U = static_cast<std::size_t>(cell.inputs);
  const std::int64_t chunks = (request.steps + request.chunk - 1) / request.chunk;
  const auto count = static_cast<std::size_t>(chunks);
  std::vector<T> start(count * S), end(count * S), jacobian(count * S * S);
  std::vector<T> state(S), next(S), product(S * S), identity(S * S);
  for (std::size_t s = 0; s < S; ++s) identity[s * S + s] = 1;
  const auto inputs_of = [&](std::int64_t t) { return &inputs[static_cast<std::size_t>(t) * U]; };
  const auto run_chunk = [&](std::size_t p) {
    std::copy_n(&start[p * S], S, state.begin());
    T* m = &jacobian[p * S * S];
    std::copy(identity.begin(), identity.end(), m);
    const std::int64_t first = std::int64_t(p) * request.chunk;
    for (std::int64_t t = first; t < std::min(first + request.chunk, request.steps); ++t) {
      functions.linearize(state.data(), inputs_of(t), weights.data(), m, next.data(),
                          product.data());
      state.swap(next);
      std::copy(product.begin(), product.end(), m);
    }
    std::copy(state.begin(), state.end(), &end[p * S]);
  };

  for (std::size_t p = 0; p < count; ++p) {
    const std::int64_t first = std::int64_t(p) * request.chunk;
    std::fill(state.begin(), state.end(), T(0));
    for (std::int64_t t = std::max<std::int64_t>(first - request.burn_in, 0); t < first; ++t) {
      functions.step(state.data(), inputs_of(t), weights.data(), next.data());
      state.swap(next);
    }
    std::copy(state.begin(), state.end(), &start[p * S]);
    run_chunk(p);
  }
  std::vector<T> delta(S), moved(S);
  std::vector<bool> runs_again(count);
  const double bar = 0.25 * request.tolerance;  // a start that moves less stays
  for (int k = 0;; ++k) {
    bool passed = true;
    for (std::size_t p = 1; passed && p < count; ++p) {
      passed = state_mismatch(&end[(p - 1) * S], &start[p * S], cell.state) <= request.tolerance;
    }
    if (passed) return k;
    if (k == request.most) return -1;
    std::fill(delta.begin(), delta.end(), T(0));
    for (std::size_t p = 1; p < count; ++p) {
      for (std::size_t s = 0; s < S; ++s) {
        T arrived = end[(p - 1) * S + s], sum = 0;
        for (std::size_t i = 0; i < S; ++i) sum += jacobian[((p - 1) * S + s) * S + i] * delta[i];
        moved[s] = std::isfinite(arrived + sum) ? arrived + sum : arrived;
      }
      for (std::size_t s = 0; s < S; ++s) {
        delta[s] = moved[s] - start[p * S + s];
        if (!std::isfinite(delta[s])) delta[s] = 0;
      }
      runs_again[p] = state_mismatch(moved.data(), &start[p * S], cell.state) > bar;
      if (runs_again[p]) std::copy(moved.begin(), moved.end(), &start[p * S]);
    }
    // The ends and Jacobians that the corrections came from are used up now.
    for (std::size_t p = 1; p < count; ++p) {
      if (runs_again[p]) run_chunk(p);
    }
  }
}

/// Of several channels.
struct NewtonCorrections {
  int median = 0, worst = 0;  // -1: more than the request allows
};

/// Random channels in one regime, in the arithmetic of T.
template <class T>
NewtonCorrections measure_newton(const CellAnalysis& cell, const InputRoles& roles,
                                 const Regime& regime, const NewtonRequest& request,
                                 int channels = 8, std::uint64_t seed = 2) {
  std::vector<double> corrections;
  for (int channel = 0; channel < channels; ++channel) {
    RandomChannel random(cell, roles, regime, seed * 1000 + std::uint64_t(channel));
    const std::vector<T> weights(random.weights(), random.weights() + cell.params);
    std::vector<T> inputs;
    inputs.reserve(static_cast<std::size_t>(request.steps * cell.inputs));
    for (std::int64_t t = 0; t < request.steps; ++t) {
      const double* u = random.next_inputs();
      inputs.insert(inputs.end(), u, u + cell.inputs);
    }
    int needed = 0;
    if constexpr (sizeof(T) == sizeof(double)) {
      needed = newton_corrections(cell, cell.twice, inputs, weights, request);
    } else {
      needed = newton_corrections(cell, cell.single, inputs, weights, request);
    }
    corrections.push_back(needed < 0 ? HUGE_VAL : needed);
  }
  const auto number = [](double x) { return std::isfinite(x) ? int(x) : -1; };
  return {number(median_of(corrections)),
          number(*std::max_element(corrections.begin(), corrections.end()))};
}

}  // namespace pararnn
