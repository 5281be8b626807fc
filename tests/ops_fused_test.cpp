// The parts of a model between its products: each fused function equals its definition, every
// gradient equals finite differences, and a block-diagonal projection equals a dense one.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>
#include <random>
#include <vector>

#include "base/error.hpp"
#include "gradient_test_support.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"
#include "ops/head_projection/head_projection.hpp"
#include "ops/residual/residual.hpp"
#include "ops/rms_norm/rms_norm.hpp"
#include "ops/swiglu/swiglu.hpp"

namespace pararnn::ops {
namespace {

using test::expect_gradient;
using test::half_of_wider;
using test::kDouble;
using test::leaf;
using torch::Tensor;

struct Shape {
  int64_t batch, steps, width;
};

/// Shapes that are multiples of nothing, and blocks of rows that are full, cut, and single.
std::vector<Shape> shapes() {
  std::vector<Shape> result{{1, 1, 1}, {2, 129, 5}, {3, 7, 600}, {1, 300, 33}};
  std::mt19937 random(7);
  const auto up_to = [&](int64_t largest) { return 1 + static_cast<int64_t>(random()) % largest; };
  for (int i = 0; i < 4; ++i) result.push_back({up_to(4), up_to(150), up_to(70)});
  return result;
}

/// Checks a fused function against its definition in value and gradients, in the dtypes and with
/// the tolerances of each.
void expect_same(const std::function<Tensor(const std::vector<Tensor>&)>& fused,
                 const std::function<Tensor(const std::vector<Tensor>&)>& definition,
                 const std::vector<Tensor>& inputs, double tolerance) {
  const auto run = [&](const auto& f) {
    std::vector<Tensor> leaves;
    for (const Tensor& input : inputs) leaves.push_back(input.detach().requires_grad_());
    const Tensor y = f(leaves);
    torch::manual_seed(1);
    y.backward(torch::randn(y.sizes()).to(y.scalar_type()));
    std::vector<Tensor> results{y.detach()};
    for (const Tensor& input : leaves) results.push_back(input.grad());
    return results;
  };
  const auto actual = run(fused), expected = run(definition);
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i].scalar_type(), expected[i].scalar_type());
    ASSERT_EQ(actual[i].sizes(), expected[i].sizes());
    if (expected[i].numel() == 0) continue;
    const double scale = expected[i].abs().max().to(torch::kDouble).item<double>();
    const double error =
        (actual[i].to(torch::kDouble) - expected[i].to(torch::kDouble)).abs().max().item<double>();
    EXPECT_LE(error, tolerance * (1e-3 + scale)) << (i ? "gradient " : "value ") << i;
  }
}

/// The dtype of the stream, that of the branch, and how far two orders of rounding may be apart.
struct Precision {
  torch::ScalarType stream, branch;
  double tolerance;
};
const std::vector<Precision> kPrecisions{{torch::kDouble, torch::kDouble, 1e-12},
                                         {torch::kFloat, torch::kFloat, 2e-5},
                                         {torch::kFloat, torch::kBFloat16, 2e-2},
                                         {torch::kBFloat16, torch::kBFloat16, 2e-2}};

TEST(Fused, RmsNormEqualsItsDefinition) {
  torch::manual_seed(0);
  for (const auto& [batch, steps, width] : shapes()) {
    for (const auto& [stream, branch, tolerance] : kPrecisions) {
      const auto weight = stream == torch::kDouble ? torch::kDouble : torch::kFloat;
      std::vector<Tensor> inputs{half_of_wider({batch, steps, width}, stream),
                                 torch::randn(width, weight)};
      expect_same([&](const auto& x) { return rms_norm(x[0], x[1], 1e-5, branch); },
                  [&](const auto& x) { return rms_norm_definition(x[0], x[1], 1e-5, branch); },
                  inputs, tolerance);
      inputs.push_back(half_of_wider({batch, steps, width}, branch) * 3);
      for (const NormGate place : {NormGate::kAfter, NormGate::kBefore}) {
        expect_same([&](const auto& x) { return rms_norm(x[0], x[1], 1e-5, branch, x[2], place); },
                    [&](const auto& x) {
                      return rms_norm_definition(x[0], x[1], 1e-5, branch, x[2], place);
                    },
                    inputs, tolerance);
      }
    }
  }
}

TEST(Fused, GateBeforeTheNormEqualsItsDefinition) {
  torch::manual_seed(10);
  for (const auto& [batch, steps, width] : shapes()) {
    for (const auto& [stream, branch, tolerance] : kPrecisions) {
      const auto weight = stream == torch::kDouble ? torch::kDouble : torch::kFloat;
      const auto norm_with = [&, branch = branch](const auto& norm) {
        return [&norm, branch](const std::vector<Tensor>& x) {
          return norm(x[0], x[1], 1e-5, branch, x[2], NormGate::kBefore);
        };
      };
      expect_same(norm_with(rms_norm), norm_with(rms_norm_definition),
                  {half_of_wider({batch, steps, width}, stream), torch::randn(width, weight),
                   half_of_wider({batch, steps, width}, branch) * 3},
                  tolerance);
    }
  }
}

TEST(Fused, SwigluEqualsItsDefinition) {
  torch::manual_seed(1);
  for (const auto& [batch, steps, width] : shapes()) {
    for (const auto& [stream, branch, tolerance] : kPrecisions) {
      expect_same([](const auto& x) { return swiglu(x[0]); },
                  [](const auto& x) { return swiglu_definition(x[0]); },
                  {half_of_wider({batch, steps, 2 * width}, branch) * 4}, tolerance);
    }
  }
}

TEST(Fused, ResidualEqualsItsDefinition) {
  torch::manual_seed(2);
  for (const auto& [batch, steps, width] : shapes()) {
    for (const auto& [stream, branch, tolerance] : kPrecisions) {
      const auto scale = stream == torch::kDouble ? torch::kDouble : torch::kFloat;
      expect_same([](const auto& x) { return add_scaled(x[0], x[1], x[2]); },
                  [](const auto& x) { return add_scaled_definition(x[0], x[1], x[2]); },
                  {torch::randn({batch, steps, width}, stream), torch::randn(width, scale),
                   half_of_wider({batch, steps, width}, branch)},
                  tolerance);
    }
  }
}

TEST(Fused, ConvolutionEqualsItsDefinition) {
  torch::manual_seed(3);
  for (const auto& [batch, steps, width] : shapes()) {
    for (const int64_t taps : {1, 2, 4, 7}) {
      for (const auto& [stream, branch, tolerance] : kPrecisions) {
        const auto weight = stream == torch::kDouble ? torch::kDouble : torch::kFloat;
        for (const Tensor& reset : {Tensor(), torch::rand({batch, steps}) < 0.2}) {
          expect_same(
              [&](const auto& x) { return causal_convolution(x[0], x[1], x[2], reset); },
              [&](const auto& x) { return causal_convolution_definition(x[0], x[1], x[2], reset); },
              {half_of_wider({batch, steps, width}, branch), torch::randn({taps, width}, weight),
               torch::randn({batch, taps - 1, width}).to(branch)},
              tolerance);
          expect_same(
              [&](const auto& x) { return causal_convolution(x[0], x[1], x[2], reset, x[3]); },
              [&](const auto& x) {
                return causal_convolution_definition(x[0], x[1], x[2], reset, x[3]);
              },
              {half_of_wider({batch, steps, width}, branch), torch::randn({taps, width}, weight),
               torch::randn({batch, taps - 1, width}).to(branch), torch::randn({width}, weight)},
              tolerance);
        }
      }
    }
  }
}

TEST(Fused, ExtremeGatesStayFinite) {
  const Tensor gate = torch::tensor({-1e30f, -200.0f, -88.0f, 0.0f, 88.0f, 200.0f, 1e30f});
  const Tensor x = torch::cat({gate, torch::ones(7)}).requires_grad_();
  const Tensor y = swiglu(x.unsqueeze(0));
  y.sum().backward();
  EXPECT_TRUE(torch::allclose(y, swiglu_definition(x.unsqueeze(0)), 1e-6, 1e-7));
  EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
}

TEST(Fused, NotANumberIsPassedOn) {
  for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kBFloat16}) {
    Tensor x = torch::ones({2, 6}, dtype);
    x[1][2] = NAN;
    const Tensor isnan = swiglu(x).isnan();
    EXPECT_TRUE(isnan[1][2].item<bool>());
    EXPECT_EQ(isnan.sum().item<int64_t>(), 1);
    EXPECT_TRUE(rms_norm(x, torch::ones(6), 1e-5, dtype)[1].isnan().all().item<bool>());
  }
}

TEST(Fused, ResultsDoNotDependOnTheThreads) {
  torch::manual_seed(4);
  const Tensor x = torch::randn({5, 333, 64}), weight = torch::randn(64).requires_grad_();
  const auto gradient = [&](int threads) {
    const int before = torch::get_num_threads();
    torch::set_num_threads(threads);
    weight.mutable_grad() = Tensor();
    rms_norm(x, weight, 1e-5, torch::kFloat).square().sum().backward();
    torch::set_num_threads(before);
    return weight.grad().clone();
  };
  EXPECT_TRUE(torch::equal(gradient(1), gradient(3)));
}

TEST(Fused, SecondDerivativesAreRefused) {
  const Tensor x = leaf({2, 6});
  const Tensor y = swiglu(x).sum();
  EXPECT_THROW(torch::autograd::grad({y}, {x}, {}, true, /*create_graph=*/true), Error);
}

TEST(Gradient, Functions) {
  torch::manual_seed(5);
  const Tensor x = leaf({2, 9, 5}), weight = leaf({5}), gate = leaf({2, 9, 5});
  expect_gradient([&] { return rms_norm(x, weight, 1e-5, torch::kDouble); }, {x, weight});
  for (const NormGate place : {NormGate::kAfter, NormGate::kBefore}) {
    expect_gradient([&] { return rms_norm(x, weight, 1e-5, torch::kDouble, gate, place); },
                    {x, weight, gate});
  }
  expect_gradient([&] { return add_scaled(x, weight, gate); }, {x, weight, gate});
  const Tensor wide = leaf({2, 9, 8}), taps = leaf({4, 5}), before = leaf({2, 3, 5});
  expect_gradient([&] { return swiglu(wide); }, {wide});
  const Tensor reset = torch::rand({2, 9}) < 0.3;
  for (const Tensor& anew : {Tensor(), reset}) {
    expect_gradient([&] { return causal_convolution(x, taps, before, anew); }, {x, taps, before});
    expect_gradient([&] { return causal_convolution(x, taps, before, anew, weight); },
                    {x, taps, before, weight});
  }
  for (const int64_t heads : {1, 2, 4}) {
    const Tensor blocks = leaf({heads, 3 * 8 / heads, 8 / heads}),
                 bias = leaf({heads, 3 * 8 / heads});
    expect_gradient([&] { return head_projection(wide, blocks, bias); }, {wide, blocks, bias});
  }
}

TEST(HeadProjection, EqualsADenseOneWithABlockMatrix) {
  torch::manual_seed(8);
  const int64_t batch = 2, steps = 5, width = 12, inputs = 3;
  const Tensor x = torch::randn({batch, steps, width}, kDouble);
  for (const int64_t heads : {2, 3, 6, 12}) {
    const int64_t channels = width / heads;
    const Tensor weight = torch::randn({heads, inputs * channels, channels}, kDouble);
    const Tensor bias = torch::randn({heads, inputs * channels}, kDouble);
    // Row (input, head, channel) of the dense matrix is row (input, channel) of the head's block.
    Tensor dense = torch::zeros({inputs, heads, channels, heads, channels}, kDouble);
    for (int64_t h = 0; h < heads; ++h) {
      dense.select(1, h).select(2, h).copy_(weight[h].view({inputs, channels, channels}));
    }
    const Tensor dense_bias = bias.view({heads, inputs, channels}).transpose(0, 1).reshape({1, -1});
    const Tensor expected = head_projection(x, dense.view({1, inputs * width, width}), dense_bias);
    ASSERT_EQ(expected.sizes(), torch::IntArrayRef({batch, steps, inputs, width}));
    const Tensor u = head_projection(x, weight, bias);
    ASSERT_EQ(u.sizes(), torch::IntArrayRef({batch, steps, heads, inputs, channels}));
    EXPECT_TRUE(u.select(2, heads - 1).is_contiguous());
    EXPECT_TRUE(torch::allclose(u.transpose(2, 3).flatten(3), expected, 1e-12, 1e-12));
  }
}

}  // namespace
}  // namespace pararnn::ops
