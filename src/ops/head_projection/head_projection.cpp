#include "ops/head_projection/head_projection.hpp"

#include <torch/autograd.h>

#include "base/error.hpp"
#include "ops/row_sum/row_sum.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

// One matrix product a head, which reads its columns in place. What the heads give lies one head
// after the other, (H,N,U·d/H): a product can add its bias as it stores if its rows are neighbours.
struct BlockDiagonalProduct : torch::autograd::Function<BlockDiagonalProduct> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                        const Tensor& weight, const Tensor& bias) {
    const int64_t heads = weight.size(0);
    const Tensor columns = x.reshape({-1, heads, weight.size(2)});
    const Tensor u = torch::empty({heads, columns.size(0), weight.size(1)}, x.options());
    for (int64_t h = 0; h < heads; ++h) {
      Tensor out = u[h];
      torch::addmm_out(out, bias[h], columns.select(1, h), weight[h].t());
    }
    context->save_for_backward({columns, weight});
    return u.transpose(0, 1);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor &columns = saved[0], &weight = saved[1], &du = gradients[0];
    const Tensor dx = torch::empty(columns.sizes(), columns.options());
    const Tensor dweight = torch::empty(weight.sizes(), weight.options());
    for (int64_t h = 0; h < weight.size(0); ++h) {
      Tensor dx_head = dx.select(1, h), dweight_head = dweight[h];
      torch::mm_out(dx_head, du.select(1, h), weight[h]);
      torch::mm_out(dweight_head, du.select(1, h).t(), columns.select(1, h));
    }
    return {dx.flatten(1), dweight, sum_of_rows(du, du.scalar_type())};
  }
};

}  // namespace

Tensor head_projection(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const int64_t batch = x.size(0), steps = x.size(1), width = x.size(2);
  const int64_t heads = weight.size(0), channels = width / heads,
                inputs = weight.size(1) / channels;
  const Tensor w = weight.to(x.scalar_type()), b = bias.to(x.scalar_type());
  if (heads == 1) return torch::linear(x, w[0], b[0]).view({batch, steps, inputs, width});
  return BlockDiagonalProduct::apply(x.reshape({batch * steps, width}), w, b)
      .view({batch, steps, heads, inputs, channels});
}

}  // namespace pararnn::ops
