#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/autograd.h>

#include "ops/attention/attention.hpp"
#include "ops/rotary/rotary.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// Queries, keys and values in a product (B,T,(H + 2H')·n).
AttentionInputs split_product(const Tensor& product, int64_t heads, int64_t key_value_heads) {
  const auto by_head = product.unflatten(2, {heads + 2 * key_value_heads, -1});
  return {by_head.narrow(2, 0, heads), by_head.narrow(2, heads, key_value_heads),
          by_head.narrow(2, heads + key_value_heads, key_value_heads)};
}

struct FusedAttentionInputs : torch::autograd::Function<FusedAttentionInputs> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& x, const Tensor& weight,
                                                const Tensor& positions, int64_t heads,
                                                int64_t key_value_heads, double base) {
    // To autograd the results are three tensors, not views of one that has changed.
    const at::AutoDispatchBelowADInplaceOrView plain;
    const Tensor product = torch::linear(x, weight);
    const auto [q, k, v] = split_product(product, heads, key_value_heads);
    rotate_into({q, q}, {k, k}, positions, base, 1);
    context->save_for_backward({x, weight, positions});
    context->saved_data["heads"] = heads;
    context->saved_data["key_value_heads"] = key_value_heads;
    context->saved_data["base"] = base;
    return {q, k, v};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &positions = saved[2];
    const Tensor dproduct =
        torch::empty({x.size(0), x.size(1), weight.size(0)}, gradients[0].options());
    const auto [dq, dk, dv] = split_product(dproduct, context->saved_data["heads"].toInt(),
                                            context->saved_data["key_value_heads"].toInt());
    rotate_into({gradients[0], dq}, {gradients[1], dk}, positions,
                context->saved_data["base"].toDouble(), -1, {gradients[2], dv});
    const Tensor rows = dproduct.flatten(0, 1);
    Tensor dx, dweight;
    if (context->needs_input_grad(0)) dx = rows.mm(weight).view(x.sizes());
    if (context->needs_input_grad(1)) dweight = rows.t().mm(x.flatten(0, 1));
    return {dx, dweight, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

AttentionInputs attention_inputs(const Tensor& x, const Tensor& weight, int64_t heads,
                                 int64_t key_value_heads, const Tensor& positions, double base) {
  const auto parts =
      FusedAttentionInputs::apply(x, weight, positions, heads, key_value_heads, base);
  return {parts[0], parts[1], parts[2]};
}

}  // namespace pararnn::ops
