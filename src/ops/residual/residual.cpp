#include "ops/residual/residual.hpp"

#include <ATen/record_function.h>
#include <torch/autograd.h>

#include "ops/residual/residual_cuda.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

template <class X, class Y>
PARARNN_VECTORISED void forward_rows(Rows<X> x, const Arithmetic<X>* scale, Rows<Y> branch,
                                     Rows<X> sum, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const X* xs = x[row];
    const Y* branches = branch[row];
    X* sums = sum[row];
#pragma omp simd
    for (int64_t i = 0; i < x.width; ++i) {
      sums[i] = narrow<X>(widen(xs[i]) + scale[i] * widen(branches[i]));
    }
  }
}

// Adds to dscale.
template <class X, class Y>
PARARNN_VECTORISED void backward_rows(Rows<X> dsum, const Arithmetic<X>* scale, Rows<Y> branch,
                                      Rows<Y> dbranch, Arithmetic<X>* dscale, int64_t begin,
                                      int64_t end) {
  using A = Arithmetic<X>;
  for (int64_t row = begin; row < end; ++row) {
    const X* dsums = dsum[row];
    const Y* branches = branch[row];
    Y* dbranches = dbranch[row];
#pragma omp simd
    for (int64_t i = 0; i < dsum.width; ++i) {
      const A gradient = widen(dsums[i]);
      dbranches[i] = narrow<Y>(gradient * scale[i]);
      dscale[i] += gradient * widen(branches[i]);
    }
  }
}

struct FusedAddScaled : torch::autograd::Function<FusedAddScaled> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& scale, const Tensor& input_branch) {
    const Tensor x = foldable(input), branch = foldable(input_branch);
    const Tensor sum = torch::empty(input.sizes(), input.options());
    context->save_for_backward({scale, input_branch});
    if (x.is_cuda()) {
      residual_forward_cuda(x, scale, branch, sum);
      return sum;
    }
    with_types(x.scalar_type(), branch.scalar_type(), [&]<class X, class Y>(X, Y) {
      using A = Arithmetic<X>;
      const Tensor scales = scale.to(torch::CppTypeToScalarType<A>::value).contiguous();
      for_each_block(rows<X>(x).count, [&](int64_t, int64_t begin, int64_t end) {
        forward_rows<X, Y>(rows<X>(x), scales.data_ptr<A>(), rows<Y>(branch), rows<X>(sum), begin,
                           end);
      });
    });
    return sum;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor scale = saved[0], branch = foldable(saved[1]), dsum = foldable(gradients[0]);
    const Tensor dbranch = torch::empty(saved[1].sizes(), branch.options());
    if (dsum.is_cuda()) {
      const Tensor dscale = residual_backward_cuda(scale, branch, dsum, dbranch);
      return {gradients[0], dscale.to(scale.scalar_type()), dbranch};
    }
    Tensor dscale;
    with_types(dsum.scalar_type(), branch.scalar_type(), [&]<class X, class Y>(X, Y) {
      using A = Arithmetic<X>;
      const auto arithmetic = torch::CppTypeToScalarType<A>::value;
      const Tensor scales = scale.to(arithmetic).contiguous();
      const int64_t count = rows<X>(dsum).count, width = dsum.size(-1);
      const Tensor partial =
          torch::zeros({block_count(count), width}, dsum.options().dtype(arithmetic));
      for_each_block(count, [&](int64_t block, int64_t begin, int64_t end) {
        backward_rows<X, Y>(rows<X>(dsum), scales.data_ptr<A>(), rows<Y>(branch), rows<Y>(dbranch),
                            partial.data_ptr<A>() + block * width, begin, end);
      });
      dscale = partial.sum(0).to(scale.scalar_type());
    });
    return {gradients[0], dscale, dbranch};
  }
};

}  // namespace

Tensor add_scaled(const Tensor& x, const Tensor& scale, const Tensor& branch) {
  RECORD_FUNCTION("pararnn::add_scaled", c10::ArrayRef<const c10::IValue>{});
  const auto dtype = branch.scalar_type();
  if (has_loops_with(x, dtype) || has_residual_kernels(x, dtype)) {
    return FusedAddScaled::apply(x, scale, branch);
  }
  return add_scaled_definition(x, scale, branch);
}

Tensor add_scaled_definition(const Tensor& x, const Tensor& scale, const Tensor& branch) {
  const auto arithmetic = arithmetic_dtype(x.scalar_type());
  return torch::addcmul(x.to(arithmetic), scale.to(arithmetic), branch).to(x.scalar_type());
}

}  // namespace pararnn::ops
