#include "ops/embedding/embedding.hpp"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/utils.h>

namespace pararnn::ops {
namespace {

using torch::Tensor;

TEST(OpsEmbedding, TakesRowsAndSumsTheirGradientsInFullPrecision) {
  torch::manual_seed(1);
  // A token that comes so often that a sum in bf16 would stand still.
  const Tensor tokens = torch::cat(
      {torch::zeros({2, 1000}, torch::kLong), torch::randint(1, 9, {2, 50}, torch::kLong)}, 1);
  for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kBFloat16, torch::kHalf}) {
    const Tensor table = torch::randn({9, 5}).to(dtype).requires_grad_();
    const Tensor exact = table.detach().to(torch::kDouble).requires_grad_();
    const Tensor y = ops::embedding(table, tokens), expected = torch::embedding(exact, tokens);
    EXPECT_EQ(y.scalar_type(), dtype);
    EXPECT_TRUE(torch::equal(y.to(torch::kDouble), expected));
    const Tensor dy = (1 + torch::rand(y.sizes())).to(dtype);
    const Tensor got = torch::autograd::grad({y}, {table}, {dy})[0].to(torch::kDouble);
    const Tensor right = torch::autograd::grad({expected}, {exact}, {dy.to(torch::kDouble)})[0];
    const double rounding = dtype == torch::kBFloat16 ? 0x1p-8
                            : dtype == torch::kHalf   ? 0x1p-10
                                                      : 1e-5;
    EXPECT_TRUE(torch::allclose(got, right, rounding, 0));
  }
}

}  // namespace
}  // namespace pararnn::ops
