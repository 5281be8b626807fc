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

/// 1, or by what the gate multiplies.
template <NormGate kGate, class A>
[[gnu::always_inline]] inline A before_norm(A gate) {
  return kGate == NormGate::kBefore ? gate * sigmoid(gate) : A(1);
}
template <NormGate kGate, class A>
[[gnu::always_inline]] inline A after_norm(A gate) {
  return kGate == NormGate::kAfter ? gate * sigmoid(gate) : A(1);
}

// Stored values: X of x, Y of y and the gate. A row of `gates` is read where there is a gate.
template <NormGate kGate, class X, class Y>
[[gnu::always_inline]] inline Arithmetic<X> inverse_rms(const X* x, const Y* gates, int64_t width,
                                                        Arithmetic<X> epsilon) {
  using A = Arithmetic<X>;
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) {
    A value = widen(x[i]);
    if constexpr (kGate == NormGate::kBefore) value *= before_norm<kGate>(A(widen(gates[i])));
    sum += value * value;
  }
  return 1 / std::sqrt(sum / width + epsilon);
}

template <NormGate kGate, class X, class Y>
PARARNN_VECTORISED void forward_rows(Rows<X> x, const Arithmetic<X>* weight, Arithmetic<X> epsilon,
                                     Rows<Y> gate, Rows<Y> y, int64_t begin, int64_t end) {
  using A = Arithmetic<X>;
  for (int64_t row = begin; row < end; ++row) {
    const X* xs = x[row];
    const Y* gates = gate[row];
    Y* ys = y[row];
    const A scale = inverse_rms<kGate>(xs, gates, x.width, epsilon);
#pragma omp simd
    for (int64_t i = 0; i < x.width; ++i) {
      A value = widen(xs[i]) * scale * weight[i];
      // Before or after the norm: what is left is one product.
      if constexpr (kGate != NormGate::kNone) value *= widen(gates[i]) * sigmoid(widen(gates[i]));
      ys[i] = narrow<Y>(value);
    }
  }
}

// With v what is normalised, n = v · r, r the inverse RMS, and g = dL/dn: dL/dv = r (g - n mean(g ⊙
// n)). Adds to dweight.
template <NormGate kGate, class X, class Y>
PARARNN_VECTORISED void backward_rows(Rows<X> x, const Arithmetic<X>* weight, Arithmetic<X> epsilon,
                                      Rows<Y> gate, Rows<Y> dy, Rows<X> dx, Rows<Y> dgate,
                                      Arithmetic<X>* dweight, int64_t begin, int64_t end) {
  using A = Arithmetic<X>;
  constexpr bool kGated = kGate != NormGate::kNone;
  for (int64_t row = begin; row < end; ++row) {
    const X* xs = x[row];
    const Y* gates = gate[row];
    const Y* dys = dy[row];
    X* dxs = dx[row];
    Y* dgates = dgate[row];
    const A scale = inverse_rms<kGate>(xs, gates, x.width, epsilon);
    A dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < x.width; ++i) {
      const A n = widen(xs[i]) * scale;  // but for a gate before the norm
      A product = widen(dys[i]) * n;
      if constexpr (kGated) {
        const A g = widen(gates[i]);
        const A s = sigmoid(g);
        if constexpr (kGate == NormGate::kAfter) {
          dgates[i] = narrow<Y>(product * weight[i] * (s + g * s * (1 - s)));
        }
        product *= g * s;
      }
      dweight[i] += product;
      dot += product * weight[i];
    }
    const A mean = dot / x.width;
#pragma omp simd
    for (int64_t i = 0; i < x.width; ++i) {
      A before = 1, after = 1;
      if constexpr (kGated) {
        before = before_norm<kGate>(A(widen(gates[i])));
        after = after_norm<kGate>(A(widen(gates[i])));
      }
      const A value = widen(xs[i]) * before;
      const A dvalue = scale * (widen(dys[i]) * weight[i] * after - value * scale * mean);
      dxs[i] = narrow<X>(dvalue * before);
      if constexpr (kGate == NormGate::kBefore) {
        const A g = widen(gates[i]);
        const A s = sigmoid(g);
        dgates[i] = narrow<Y>(dvalue * widen(xs[i]) * (s + g * s * (1 - s)));
      }
    }
  }
}

/// Calls f with the place of the gate as a constant.
template <class F>
void with_gate(NormGate place, F&& f) {
  if (place == NormGate::kAfter) return f.template operator()<NormGate::kAfter>();
  if (place == NormGate::kBefore) return f.template operator()<NormGate::kBefore>();
  f.template operator()<NormGate::kNone>();
}

struct FusedRmsNorm : torch::autograd::Function<FusedRmsNorm> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& weight, double epsilon, torch::ScalarType dtype,
                        const std::optional<Tensor>& input_gate, NormGate place) {
    const Tensor x = foldable(input);
    const Tensor gate = input_gate ? foldable(*input_gate) : Tensor();
    const Tensor y = torch::empty(input.sizes(), input.options().dtype(dtype));
    with_types(x.scalar_type(), dtype, [&]<class X, class Y>(X, Y) {
      using A = Arithmetic<X>;
      const Tensor weights = weight.to(torch::CppTypeToScalarType<A>::value).contiguous();
      for_each_block(rows<X>(x).count, [&](int64_t, int64_t begin, int64_t end) {
        with_gate(place, [&]<NormGate kGate>() {
          forward_rows<kGate>(rows<X>(x), weights.data_ptr<A>(), A(epsilon),
                              gate.defined() ? rows<Y>(gate) : Rows<Y>{}, rows<Y>(y), begin, end);
        });
      });
    });
    context->save_for_backward({input, weight, input_gate.value_or(Tensor())});
    context->saved_data["epsilon"] = epsilon;
    context->saved_data["gate"] = static_cast<int64_t>(place);
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
    const auto place = static_cast<NormGate>(context->saved_data["gate"].toInt());
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
        with_gate(place, [&]<NormGate kGate>() {
          backward_rows<kGate>(rows<X>(x), weights.data_ptr<A>(), A(epsilon),
                               gate.defined() ? rows<Y>(gate) : Rows<Y>{}, rows<Y>(dy), rows<X>(dx),
                               gate.defined() ? rows<Y>(dgate) : Rows<Y>{}, sums, begin, end);
        });
      });
      dweight = partial.sum(0).to(weight.scalar_type());
    });
    return {dx, dweight, Tensor(), Tensor(), dgate, Tensor()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon, torch::ScalarType dtype,
                const std::optional<Tensor>& gate, NormGate place) {
  if (!gate) place = NormGate::kNone;
  RECORD_FUNCTION("pararnn::rms_norm", c10::ArrayRef<const c10::IValue>{});
  if (has_norm_kernels(x, dtype)) {
    return norm_on_cuda(x, {}, {}, weight, epsilon, dtype, gate, place).second;
  }
  if (has_loops_with(x, dtype)) return FusedRmsNorm::apply(x, weight, epsilon, dtype, gate, place);
  return rms_norm_definition(x, weight, epsilon, dtype, gate, place);
}

std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& scale, const Tensor& branch,
                                       const Tensor& weight, double epsilon,
                                       torch::ScalarType dtype) {
  RECORD_FUNCTION("pararnn::add_rms_norm", c10::ArrayRef<const c10::IValue>{});
  if (has_norm_kernels(x, dtype) && branch.scalar_type() == dtype) {
    return norm_on_cuda(x, scale, branch, weight, epsilon, dtype, {}, NormGate::kNone);
  }
  const Tensor sum = add_scaled(x, scale, branch);
  return {sum, rms_norm(sum, weight, epsilon, dtype)};
}

Tensor rms_norm_definition(const Tensor& x, const Tensor& weight, double epsilon,
                           torch::ScalarType dtype, const std::optional<Tensor>& gate,
                           NormGate place) {
  const auto arithmetic = arithmetic_dtype(x.scalar_type());
  const auto gated = [&](const Tensor& t, NormGate here) {
    return gate && place == here ? t * torch::silu(gate->to(arithmetic)) : t;
  };
  Tensor y = gated(x.to(arithmetic), NormGate::kBefore);
  y = torch::rms_norm(y, x.size(-1), weight.to(arithmetic), epsilon);
  y = gated(y, NormGate::kAfter);
  return y.to(dtype);
}

}  // namespace pararnn::ops
