#include "ops/rms_norm/rms_norm.hpp"

#include <ATen/record_function.h>
#include <torch/autograd.h>

#include <type_traits>

#include "ops/halves/halves.hpp"
#include "ops/residual/residual.hpp"
#include "ops/rms_norm/rms_norm_cuda.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

template <class X>
inline Arithmetic<X> inverse_rms(const X* x, int64_t width, Arithmetic<X> epsilon) {
  Arithmetic<X> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += widen(x[i]) * widen(x[i]);
  return 1 / std::sqrt(sum / width + epsilon);
}

// Stored values: X of x, Y of y and the gate. A row of `gate` is read where kGated.
template <bool kGated, class X, class Y>
PARARNN_VECTORISED void forward_rows(Rows<X> x, const Arithmetic<X>* weight, Arithmetic<X> epsilon,
                                     Rows<Y> gate, Rows<Y> y, int64_t begin, int64_t end) {
  using A = Arithmetic<X>;
  for (int64_t row = begin; row < end; ++row) {
    const X* xs = x[row];
    const Y* gates = gate[row];
    Y* ys = y[row];
    const A scale = inverse_rms(xs, x.width, epsilon);
#pragma omp simd
    for (int64_t i = 0; i < x.width; ++i) {
      A value = widen(xs[i]) * scale * weight[i];
      if constexpr (kGated) value *= widen(gates[i]) * sigmoid(widen(gates[i]));
      ys[i] = narrow<Y>(value);
    }
  }
}

// With n = x · r, r the inverse RMS, and g = dL/dn: dL/dx = r (g - n mean(g ⊙ n)). Adds to dweight.
template <bool kGated, class X, class Y>
PARARNN_VECTORISED void backward_rows(Rows<X> x, const Arithmetic<X>* weight, Arithmetic<X> epsilon,
                                      Rows<Y> gate, Rows<Y> dy, Rows<X> dx, Rows<Y> dgate,
                                      Arithmetic<X>* dweight, int64_t begin, int64_t end) {
  using A = Arithmetic<X>;
  const auto gated = [](A gate_value) { return kGated ? gate_value * sigmoid(gate_value) : A(1); };
  for (int64_t row = begin; row < end; ++row) {
    const X* xs = x[row];
    const Y* gates = gate[row];
    const Y* dys = dy[row];
    X* dxs = dx[row];
    Y* dgates = dgate[row];
    const A scale = inverse_rms(xs, x.width, epsilon);
    A dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < x.width; ++i) {
      const A n = widen(xs[i]) * scale;
      A product = widen(dys[i]) * n;
      if constexpr (kGated) {
        const A g = widen(gates[i]);
        const A s = sigmoid(g);
        dgates[i] = narrow<Y>(product * weight[i] * (s + g * s * (1 - s)));
        product *= g * s;
      }
      dweight[i] += product;
      dot += product * weight[i];
    }
    const A mean = dot / x.width;
#pragma omp simd
    for (int64_t i = 0; i < x.width; ++i) {
      A g = widen(dys[i]) * weight[i];
      if constexpr (kGated) g *= gated(widen(gates[i]));
      dxs[i] = narrow<X>(scale * (g - widen(xs[i]) * scale * mean));
    }
  }
}

struct FusedRmsNorm : torch::autograd::Function<FusedRmsNorm> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& weight, double epsilon, torch::ScalarType dtype,
                        const std::optional<Tensor>& input_gate) {
    const Tensor x = foldable(input);
    const Tensor gate = input_gate ? foldable(*input_gate) : Tensor();
    const Tensor y = torch::empty(input.sizes(), input.options().dtype(dtype));
    with_types(x.scalar_type(), dtype, [&]<class X, class Y>(X, Y) {
      using A = Arithmetic<X>;
      const Tensor weights = weight.to(torch::CppTypeToScalarType<A>::value).contiguous();
      for_each_block(rows<X>(x).count, [&](int64_t, int64_t begin, int64_t end) {
        if (gate.defined()) {
          forward_rows<true>(rows<X>(x), weights.data_ptr<A>(), A(epsilon), rows<Y>(gate),
                             rows<Y>(y), begin, end);
        } else {
          forward_rows<false>(rows<X>(x), weights.data_ptr<A>(), A(epsilon), Rows<Y>{}, rows<Y>(y),
                              begin, end);
        }
      });
    });
    context->save_for_backward({input, weight, input_gate.value_or(Tensor())});
    context->saved_data["epsilon"] = epsilon;
    if (gate.defined()) context->saved_data["place"] = place_of_gradient(*input_gate);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor x = foldable(saved[0]);
    const Tensor weight = saved[1];
    const Tensor gate = saved[2].defined() ? foldable(saved[2]) : Tensor();
    const double epsilon = context->saved_data["epsilon"].toDouble();
    const Tensor dy = foldable(gradients[0]);
    const Tensor dx = torch::empty(saved[0].sizes(), x.options());
    const Tensor dgate =
        gate.defined() ? empty_gradient(saved[2], context->saved_data["place"]) : Tensor();
    Tensor dweight;
    with_types(x.scalar_type(), dy.scalar_type(), [&]<class X, class Y>(X, Y) {
      using A = Arithmetic<X>;
      const auto arithmetic = torch::CppTypeToScalarType<A>::value;
      const Tensor weights = weight.to(arithmetic).contiguous();
      const int64_t count = rows<X>(x).count;
      const Tensor partial =
          torch::zeros({block_count(count), x.size(-1)}, x.options().dtype(arithmetic));
      for_each_block(count, [&](int64_t block, int64_t begin, int64_t end) {
        A* sums = partial.data_ptr<A>() + block * x.size(-1);
        if (gate.defined()) {
          backward_rows<true>(rows<X>(x), weights.data_ptr<A>(), A(epsilon), rows<Y>(gate),
                              rows<Y>(dy), rows<X>(dx), rows<Y>(dgate), sums, begin, end);
        } else {
          backward_rows<false>(rows<X>(x), weights.data_ptr<A>(), A(epsilon), Rows<Y>{},
                               rows<Y>(dy), rows<X>(dx), Rows<Y>{}, sums, begin, end);
        }
      });
      dweight = partial.sum(0).to(weight.scalar_type());
    });
    return {dx, dweight, Tensor(), Tensor(), dgate};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon, torch::ScalarType dtype,
                const std::optional<Tensor>& gate) {
  RECORD_FUNCTION("pararnn::rms_norm", c10::ArrayRef<const c10::IValue>{});
  if (has_norm_kernels(x, dtype)) {
    return norm_on_cuda(x, {}, {}, weight, epsilon, dtype, gate).second;
  }
  if (has_loops_with(x, dtype)) return FusedRmsNorm::apply(x, weight, epsilon, dtype, gate);
  return rms_norm_definition(x, weight, epsilon, dtype, gate);
}

std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& scale, const Tensor& branch,
                                       const Tensor& weight, double epsilon,
                                       torch::ScalarType dtype) {
  RECORD_FUNCTION("pararnn::add_rms_norm", c10::ArrayRef<const c10::IValue>{});
  if (has_norm_kernels(x, dtype) && branch.scalar_type() == dtype) {
    return norm_on_cuda(x, scale, branch, weight, epsilon, dtype, {});
  }
  const Tensor sum = add_scaled(x, scale, branch);
  return {sum, rms_norm(sum, weight, epsilon, dtype)};
}

Tensor rms_norm_definition(const Tensor& x, const Tensor& weight, double epsilon,
                           torch::ScalarType dtype, const std::optional<Tensor>& gate) {
  const auto arithmetic = arithmetic_dtype(x.scalar_type());
  Tensor y = torch::rms_norm(x.to(arithmetic), x.size(-1), weight.to(arithmetic), epsilon);
  if (gate) y = y * torch::silu(gate->to(arithmetic));
  return y.to(dtype);
}

}  // namespace pararnn::ops
