#include "ops/adamw/adamw.hpp"

#include <map>
#include <vector>

#include "ops/adamw/adamw_cuda.hpp"
#include "ops/adamw/adamw_problem.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// What depends on tensors of the device, as numbers of its own, (5) in fp64: see AdamWScalars.
Tensor scalars_of(const AdamWOptions& options, const Tensor& learning_rate, const Tensor& norm,
                  const Tensor& finite, const Tensor& updates) {
  const Tensor t = updates.to(torch::kDouble);
  const Tensor scale = options.clip > 0
                           ? options.clip / norm.to(torch::kDouble).clamp_min(options.clip)
                           : torch::ones_like(t);
  return torch::stack({scale, learning_rate / (1 - torch::pow(options.beta1, t)),
                       (1 - torch::pow(options.beta2, t)).rsqrt(),
                       learning_rate * options.weight_decay, finite.to(torch::kDouble)});
}

template <class A>
AdamWFactors<A> factors_of(const AdamWOptions& options, bool decays, const double* scalars) {
  return {.gradient_scale = static_cast<A>(scalars[0]),
          .step_size = static_cast<A>(scalars[1]),
          .inverse_root = static_cast<A>(scalars[2]),
          .change1 = static_cast<A>(1 - options.beta1),
          .change2 = static_cast<A>(1 - options.beta2),
          .epsilon = static_cast<A>(options.epsilon),
          .decay = static_cast<A>(decays ? scalars[3] : 0)};
}

template <class W>
PARARNN_VECTORISED void update_numbers(const AdamWFactors<Arithmetic<W>>& shared, W* weight,
                                       const W* gradient, Arithmetic<W>* master,
                                       Arithmetic<W>* first_moment, Arithmetic<W>* second_moment,
                                       int64_t begin, int64_t end) {
  const AdamWFactors<Arithmetic<W>> factors = shared;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    Arithmetic<W> p = master[i], m = first_moment[i], v = second_moment[i];
    factors.update(widen(gradient[i]), p, m, v);
    master[i] = p;
    first_moment[i] = m;
    second_moment[i] = v;
    if constexpr (!std::is_same_v<W, Arithmetic<W>>) weight[i] = narrow<W>(p);
  }
}

void adamw_on_cpu(const AdamWTensors& t, const AdamWOptions& options, const double* scalars) {
  with_type(t.weight.scalar_type(), [&]<class W>(W) {
    using A = Arithmetic<W>;
    const AdamWFactors<A> factors = factors_of<A>(options, t.decays, scalars);
    constexpr int64_t kNumbersOfThread = 1 << 15;
    at::parallel_for(0, t.master.numel(), kNumbersOfThread, [&](int64_t begin, int64_t end) {
      update_numbers<W>(factors, static_cast<W*>(t.weight.data_ptr()),
                        static_cast<const W*>(t.gradient.data_ptr()), t.master.data_ptr<A>(),
                        t.first_moment.data_ptr<A>(), t.second_moment.data_ptr<A>(), begin, end);
    });
  });
}

void define(const AdamWTensors& t, const AdamWOptions& options, const Tensor& scalars) {
  const auto arithmetic = t.master.scalar_type();
  const auto scalar = [&](int64_t i) { return scalars[i].to(arithmetic); };
  const Tensor g = t.gradient.to(arithmetic) * scalar(0);
  const Tensor m = t.first_moment + (1 - options.beta1) * (g - t.first_moment);
  const Tensor v = t.second_moment + (1 - options.beta2) * (g * g - t.second_moment);
  const Tensor kept = t.decays ? t.master * (1 - scalars[3]).to(arithmetic) : t.master;
  const Tensor p = kept - scalar(1) * m / (v.sqrt() * scalar(2) + options.epsilon);
  const Tensor finite = scalars[4] != 0;
  const auto put = [&](const Tensor& to, const Tensor& value) {
    to.copy_(torch::where(finite, value, to));
  };
  put(t.first_moment, m);
  put(t.second_moment, v);
  put(t.master, p);
  put(t.weight, t.master.to(t.weight.scalar_type()));
}

}  // namespace

void adamw(std::span<const AdamWTensors> tensors, const AdamWOptions& options,
           const Tensor& learning_rate, const Tensor& norm, const Tensor& finite,
           const Tensor& updates) {
  torch::NoGradGuard no_gradient;
  updates.add_(finite);
  const Tensor scalars = scalars_of(options, learning_rate, norm, finite, updates);
  std::map<torch::ScalarType, std::vector<AdamWTensors>> on_gpu;  // one dtype in a launch
  for (const AdamWTensors& t : tensors) {
    const torch::ScalarType dtype = t.weight.scalar_type();
    if (has_kernels(t.weight, dtype)) {
      on_gpu[dtype].push_back(t);
    } else if (!has_loops(t.weight, dtype)) {
      define(t, options, scalars);
    } else if (scalars[4].item<double>() != 0) {
      adamw_on_cpu(t, options, scalars.data_ptr<double>());
    }
  }
  if (on_gpu.empty()) return;
  const Tensor floats = scalars.to(torch::kFloat);
  for (const auto& [dtype, of_dtype] : on_gpu) adamw_on_cuda(of_dtype, options, floats);
}

void adamw_definition(std::span<const AdamWTensors> tensors, const AdamWOptions& options,
                      const Tensor& learning_rate, const Tensor& norm, const Tensor& finite,
                      const Tensor& updates) {
  torch::NoGradGuard no_gradient;
  updates.add_(finite);
  const Tensor scalars = scalars_of(options, learning_rate, norm, finite, updates);
  for (const AdamWTensors& t : tensors) define(t, options, scalars);
}

}  // namespace pararnn::ops
