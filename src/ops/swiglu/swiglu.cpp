#include "ops/swiglu/swiglu.hpp"

#include <ATen/record_function.h>
#include <torch/autograd.h>

#include "ops/cuda_kernels.hpp"
#include "ops/rows.hpp"
#include "ops/swiglu/swiglu_cuda.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

template <class T>
PARARNN_VECTORISED void forward_rows(Rows<T> x, Rows<T> y, int64_t begin, int64_t end) {
  using A = Arithmetic<T>;
  for (int64_t row = begin; row < end; ++row) {
    const T* gates = x[row];
    const T* values = x[row] + y.width;
    T* ys = y[row];
#pragma omp simd
    for (int64_t i = 0; i < y.width; ++i) {
      const A g = widen(gates[i]);
      ys[i] = narrow<T>(g * sigmoid(g) * widen(values[i]));
    }
  }
}

template <class T>
PARARNN_VECTORISED void backward_rows(Rows<T> x, Rows<T> dy, Rows<T> dx, int64_t begin,
                                      int64_t end) {
  using A = Arithmetic<T>;
  for (int64_t row = begin; row < end; ++row) {
    const T* gates = x[row];
    const T* values = x[row] + dy.width;
    const T* dys = dy[row];
    T* dgates = dx[row];
    T* dvalues = dx[row] + dy.width;
#pragma omp simd
    for (int64_t i = 0; i < dy.width; ++i) {
      const A g = widen(gates[i]), gradient = widen(dys[i]);
      const A s = sigmoid(g);
      dgates[i] = narrow<T>(gradient * widen(values[i]) * (s + g * s * (1 - s)));
      dvalues[i] = narrow<T>(gradient * g * s);
    }
  }
}

struct FusedSwiglu : torch::autograd::Function<FusedSwiglu> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input) {
    const Tensor x = foldable(input);
    std::vector<int64_t> sizes = input.sizes().vec();
    sizes.back() /= 2;
    const Tensor y = torch::empty(sizes, x.options());
    context->save_for_backward({input});
    if (x.is_cuda()) {
      swiglu_forward_cuda(x, y);
      return y;
    }
    with_type(x.scalar_type(), [&]<class T>(T) {
      for_each_block(rows<T>(x).count, [&](int64_t, int64_t begin, int64_t end) {
        forward_rows<T>(rows<T>(x), rows<T>(y), begin, end);
      });
    });
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const Tensor input = context->get_saved_variables()[0];
    const Tensor x = foldable(input), dy = foldable(gradients[0]);
    const Tensor dx = torch::empty(input.sizes(), x.options());
    if (x.is_cuda()) {
      swiglu_backward_cuda(x, dy, dx);
      return {dx};
    }
    with_type(x.scalar_type(), [&]<class T>(T) {
      for_each_block(rows<T>(x).count, [&](int64_t, int64_t begin, int64_t end) {
        backward_rows<T>(rows<T>(x), rows<T>(dy), rows<T>(dx), begin, end);
      });
    });
    return {dx};
  }
};

}  // namespace

Tensor swiglu(const Tensor& x) {
  RECORD_FUNCTION("pararnn::swiglu", c10::ArrayRef<const c10::IValue>{});
  const auto dtype = x.scalar_type();
  if (has_loops(x, dtype) || has_kernels(x, dtype)) return FusedSwiglu::apply(x);
  return swiglu_definition(x);
}

Tensor swiglu_definition(const Tensor& x) {
  const auto halves = x.chunk(2, -1);
  return torch::silu(halves[0]) * halves[1];
}

}  // namespace pararnn::ops
