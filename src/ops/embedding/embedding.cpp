#include "ops/embedding/embedding.hpp"

#include <torch/autograd.h>

#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

struct Embedding : torch::autograd::Function<Embedding> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& table,
                        const Tensor& tokens) {
    context->save_for_backward({tokens});
    context->saved_data["rows"] = table.size(0);
    return torch::embedding(table, tokens);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const Tensor tokens = context->get_saved_variables()[0];
    const int64_t rows = context->saved_data["rows"].toInt();
    const Tensor& dy = gradients[0];
    // LibTorch's sum in bf16 rounds after each token: where a row has many, the last add nothing.
    const Tensor terms = dy.to(arithmetic_dtype(dy.scalar_type()));
    return {at::embedding_dense_backward(terms, tokens, rows, /*padding_idx=*/-1,
                                         /*scale_grad_by_freq=*/false)
                .to(dy.scalar_type()),
            Tensor()};
  }
};

}  // namespace

Tensor embedding(const Tensor& table, const Tensor& tokens) {
  if (table.scalar_type() == torch::kFloat || table.scalar_type() == torch::kDouble)
    return torch::embedding(table, tokens);
  return Embedding::apply(table, tokens);
}

}  // namespace pararnn::ops
