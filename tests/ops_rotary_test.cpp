// Rotary position embedding: products of rotated queries and keys depend on distances alone,
// gradients are finite differences, and what is far away is as accurate as what is near.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "base/error.hpp"
#include "gradient_test_support.hpp"
#include "ops/rotary/rotary.hpp"

namespace pararnn::ops {
namespace {

using test::kDouble;
using torch::Tensor;

/// (B,T,H,n) as one part of a product of three.
Tensor part_of_product(torch::IntArrayRef shape, torch::TensorOptions options) {
  const Tensor whole = torch::randn({shape[0], shape[1], 3 * shape[2] * shape[3]}, options);
  return whole.narrow(2, shape[2] * shape[3], shape[2] * shape[3]).view(shape);
}

TEST(Rotary, PairsTurnByTheirPosition) {
  const Tensor q = torch::randn({2, 5, 3, 8}, kDouble), k = torch::randn({2, 5, 1, 8}, kDouble);
  const Tensor positions = torch::randint(100, {2, 5}, torch::kLong);
  const auto [rotated_q, rotated_k] = rotary(q, k, positions, 100);
  for (const auto& [x, y] : {std::pair{q, rotated_q}, std::pair{k, rotated_k}}) {
    const auto from = x.accessor<double, 4>(), to = y.accessor<double, 4>();
    for (int b = 0; b < 2; ++b) {
      for (int t = 0; t < 5; ++t) {
        for (int h = 0; h < x.size(2); ++h) {
          for (int i = 0; i < 4; ++i) {
            const double angle =
                double(positions[b][t].item<int64_t>()) * std::pow(100.0, -i / 4.0);
            const double c = std::cos(angle), s = std::sin(angle);
            EXPECT_NEAR(to[b][t][h][i], from[b][t][h][i] * c - from[b][t][h][i + 4] * s, 1e-12);
            EXPECT_NEAR(to[b][t][h][i + 4], from[b][t][h][i] * s + from[b][t][h][i + 4] * c, 1e-12);
          }
        }
      }
    }
  }
}

TEST(Rotary, ProductsDependOnTheDistance) {
  const Tensor q = torch::randn({1, 1, 2, 16}, kDouble), k = torch::randn({1, 1, 2, 16}, kDouble);
  const auto product = [&](int64_t at, int64_t distance) {
    const auto turned = [&](int64_t position) {
      return rotary(q, k, torch::full({1, 1}, position, torch::kLong));
    };
    return (turned(at).first * turned(at - distance).second).sum(3);
  };
  for (const int64_t distance : {0, 1, 77}) {
    EXPECT_TRUE(torch::allclose(product(100, distance), product(1'000'000, distance), 0, 1e-8));
  }
  EXPECT_FALSE(torch::allclose(product(100, 1), product(100, 2), 0, 1e-3));
}

TEST(Rotary, GradientsEqualFiniteDifferences) {
  const Tensor q = test::leaf({2, 3, 2, 6}), k = test::leaf({2, 3, 1, 6});
  const Tensor positions = positions_of(3, torch::kCPU, torch::tensor({5, 0}));
  test::expect_gradient(
      [&] {
        const auto [a, b] = rotary(q, k, positions);
        return torch::cat({a, b}, 2);
      },
      {q, k});
}

TEST(Rotary, PositionsGoOnAndBeginAnew) {
  EXPECT_TRUE(torch::equal(positions_of(3, torch::kCPU), torch::tensor({{0, 1, 2}})));
  const Tensor start = torch::tensor({7, 0});
  EXPECT_TRUE(
      torch::equal(positions_of(3, torch::kCPU, start), torch::tensor({{7, 8, 9}, {0, 1, 2}})));
  const Tensor reset = torch::tensor({{0, 0, 1}, {1, 0, 0}}).to(torch::kBool);
  EXPECT_TRUE(torch::equal(positions_of(3, torch::kCPU, start, reset),
                           torch::tensor({{7, 8, 0}, {0, 1, 2}})));
  EXPECT_TRUE(
      torch::equal(positions_of(3, torch::kCPU, {}, reset), torch::tensor({{0, 1, 0}, {0, 1, 2}})));
}

TEST(Rotary, RefusesOddChannels) {
  const Tensor q = torch::randn({1, 2, 1, 5});
  EXPECT_THROW(rotary(q, q, positions_of(2, torch::kCPU)), Error);
}

TEST(Rotary, OnGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
  torch::manual_seed(1);
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t channels : {2, 6, 64, 80, 128, 512}) {
      for (const int64_t first : {0, 1'000'000}) {
        SCOPED_TRACE(testing::Message() << dtype << " " << channels << " from " << first);
        const auto options = torch::dtype(dtype).device(torch::kCUDA);
        const Tensor q = part_of_product({3, 37, 4, channels}, options).requires_grad_();
        const Tensor k = part_of_product({3, 37, 2, channels}, options).requires_grad_();
        const Tensor start = torch::tensor({first, first + 1, int64_t(0)}).to(torch::kCUDA);
        const Tensor reset = torch::rand({3, 37}, torch::kCUDA) < 0.05;
        const Tensor positions = positions_of(37, torch::kCUDA, start, reset);
        const Tensor exact_q = q.detach().to(torch::kDouble).requires_grad_();
        const Tensor exact_k = k.detach().to(torch::kDouble).requires_grad_();
        const auto [a, b] = rotary(q, k, positions);
        const auto [exact_a, exact_b] = rotary_definition(exact_q, exact_k, positions);
        const Tensor da = torch::randn_like(a), db = torch::randn_like(b);
        const auto found = torch::autograd::grad({a, b}, {q, k}, {da, db});
        const auto right = torch::autograd::grad({exact_a, exact_b}, {exact_q, exact_k},
                                                 {da.to(torch::kDouble), db.to(torch::kDouble)});
        const double tolerance = dtype == torch::kFloat ? 2e-6 : 1e-2;
        for (const auto& [x, y] : {std::pair{a, exact_a}, std::pair{b, exact_b},
                                   std::pair{found[0], right[0]}, std::pair{found[1], right[1]}}) {
          EXPECT_LE((x.to(torch::kDouble) - y).abs().max().item<double>(),
                    tolerance * y.abs().max().item<double>());
        }
      }
    }
  }
}

}  // namespace
}  // namespace pararnn::ops
