// The parts of a model by their GPU kernels, on a GPU: each equals its definition, whatever the
// dtypes, sizes and layouts.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>
#include <vector>

#include "ops/adamw/adamw.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"
#include "ops/residual/residual.hpp"
#include "ops/rms_norm/rms_norm.hpp"
#include "ops/row_sum/row_sum.hpp"
#include "ops/swiglu/swiglu.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;
using Function = std::function<Tensors(const Tensors&)>;

class FusedOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    torch::manual_seed(1);
  }
};

/// Numbers of a dtype; with `half` as one half of rows twice as wide.
Tensor numbers(torch::IntArrayRef shape, torch::ScalarType dtype, bool half = false) {
  auto sizes = shape.vec();
  if (half) sizes.back() *= 2;
  const Tensor all = torch::randn(sizes).to(torch::kCUDA, dtype);
  return half ? all.narrow(-1, shape.back(), shape.back()) : all;
}

/// Expects values and gradients of the kernels to be those of the definition in double.
void expect_same_as(const Function& definition, const Function& kernels, const Tensors& inputs) {
  Tensors fast, exact;
  for (const Tensor& input : inputs) {
    fast.push_back(input.detach().requires_grad_());
    exact.push_back(input.detach().to(torch::kDouble).requires_grad_());
  }
  const Tensors got = kernels(fast), expected = definition(exact);
  Tensors dy, exact_dy;
  bool coarse = false;
  for (const Tensor& y : got) {
    dy.push_back(numbers(y.sizes(), y.scalar_type(), true));
    exact_dy.push_back(dy.back().to(torch::kDouble));
    coarse = coarse || y.scalar_type() != torch::kFloat;
  }
  Tensors found = torch::autograd::grad(got, fast, dy);
  Tensors right = torch::autograd::grad(expected, exact, exact_dy);
  found.insert(found.end(), got.begin(), got.end());
  right.insert(right.end(), expected.begin(), expected.end());
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i].numel() == 0) continue;  // the inputs before a convolution of one tap
    const double error = (found[i].to(torch::kDouble) - right[i]).abs().max().item<double>();
    const double scale = right[i].abs().max().item<double>();
    const bool rounded = coarse || found[i].scalar_type() != torch::kFloat;
    EXPECT_LE(error, (rounded ? 1e-2 : 2e-5) * (1e-3 + scale)) << i;
  }
}

const std::vector<std::pair<torch::ScalarType, torch::ScalarType>> kStreamAndBranch = {
    {torch::kFloat, torch::kFloat},
    {torch::kFloat, torch::kBFloat16},
    {torch::kBFloat16, torch::kBFloat16},
    {torch::kHalf, torch::kHalf}};

TEST_F(FusedOnGpu, RmsNorm) {
  for (const auto& [stream, branch] : kStreamAndBranch) {
    for (const int64_t width : {1, 7, 64, 200, 768, 1000, 1024, 2048, 4096, 16384}) {
      for (const bool half : {false, true}) {
        SCOPED_TRACE(testing::Message() << stream << " " << branch << " " << width);
        const auto dtype = branch;
        const Tensor x = numbers({3, 37, width}, stream, half);
        const Tensor y = numbers({3, 37, width}, branch, half);
        const Tensor weight = numbers({width}, torch::kFloat), scale = numbers({width}, stream);
        for (const NormGate place : {NormGate::kAfter, NormGate::kBefore}) {
          expect_same_as(
              [&](const Tensors& t) {
                return Tensors{rms_norm_definition(t[0], t[1], 1e-5, torch::kDouble, t[2], place)};
              },
              [&](const Tensors& t) {
                return Tensors{rms_norm(t[0], t[1], 1e-5, dtype, t[2], place)};
              },
              {x, weight, y});
        }
        expect_same_as(
            [](const Tensors& t) {
              const Tensor sum = add_scaled_definition(t[0], t[1], t[2]);
              return Tensors{sum, rms_norm_definition(sum, t[3], 1e-5, torch::kDouble)};
            },
            [&](const Tensors& t) {
              const auto [sum, normed] = add_rms_norm(t[0], t[1], t[2], t[3], 1e-5, dtype);
              return Tensors{sum, normed};
            },
            {x, scale, y, weight});
      }
    }
  }
}

TEST_F(FusedOnGpu, Residual) {
  for (const auto& [stream, branch] : kStreamAndBranch) {
    for (const int64_t width : {1, 7, 200, 768, 2048, 16384}) {
      for (const bool half : {false, true}) {
        SCOPED_TRACE(testing::Message() << stream << " " << branch << " " << width);
        expect_same_as(
            [](const Tensors& t) { return Tensors{add_scaled_definition(t[0], t[1], t[2])}; },
            [](const Tensors& t) { return Tensors{add_scaled(t[0], t[1], t[2])}; },
            {numbers({3, 37, width}, stream, half), numbers({width}, torch::kFloat),
             numbers({3, 37, width}, branch, half)});
      }
    }
  }
}

TEST_F(FusedOnGpu, Swiglu) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t width : {1, 33, 2048, 10922}) {
      SCOPED_TRACE(testing::Message() << dtype << " " << width);
      expect_same_as([](const Tensors& t) { return Tensors{swiglu_definition(t[0])}; },
                     [](const Tensors& t) { return Tensors{swiglu(t[0])}; },
                     {numbers({2, 50, 2 * width}, dtype, true)});
    }
  }
}

TEST_F(FusedOnGpu, Convolution) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t taps : {1, 2, 4, 8}) {
      for (const int64_t steps : {1, 63, 200, 3000}) {
        for (const int64_t width : {5, 768}) {
          for (const bool anew : {false, true}) {
            SCOPED_TRACE(testing::Message() << dtype << " " << taps << " " << steps << " " << width
                                            << (anew ? " reset" : ""));
            const Tensor reset = anew ? torch::rand({3, steps}, torch::kCUDA) < 0.1 : Tensor();
            expect_same_as(
                [&](const Tensors& t) {
                  return Tensors{causal_convolution_definition(t[0], t[1], t[2], reset)};
                },
                [&](const Tensors& t) {
                  return Tensors{causal_convolution(t[0], t[1], t[2], reset)};
                },
                {numbers({3, steps, width}, dtype, true), numbers({taps, width}, torch::kFloat),
                 numbers({3, taps - 1, width}, dtype)});
            expect_same_as(
                [&](const Tensors& t) {
                  return Tensors{causal_convolution_definition(t[0], t[1], t[2], reset, t[3])};
                },
                [&](const Tensors& t) {
                  return Tensors{causal_convolution(t[0], t[1], t[2], reset, t[3])};
                },
                {numbers({3, steps, width}, dtype, true), numbers({taps, width}, torch::kFloat),
                 numbers({3, taps - 1, width}, dtype), numbers({width}, torch::kFloat)});
          }
        }
      }
    }
  }
}

TEST_F(FusedOnGpu, RowSum) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t rows : {1, 500, 3000, 66000}) {
      for (const int64_t width : {5, 576}) {
        SCOPED_TRACE(testing::Message() << dtype << " " << rows << " x " << width);
        const Tensor x = numbers({4, rows, width}, dtype).transpose(0, 1);
        const Tensor exact = x.to(torch::kDouble).sum(0);
        const Tensor sum = sum_of_rows(x, dtype),
                     of_one = sum_of_rows(x.select(1, 2), torch::kFloat);
        const double scale = exact.abs().max().item<double>();
        const auto error = [&](const Tensor& a, const Tensor& b) {
          return (a.to(torch::kDouble) - b).abs().max().item<double>();
        };
        EXPECT_LE(error(sum, exact), (dtype == torch::kFloat ? 1e-5 : 1e-2) * scale);
        EXPECT_LE(error(of_one, exact[2]), 1e-5 * scale);
        EXPECT_TRUE(torch::equal(sum, sum_of_rows(x, dtype)));
      }
    }
  }
}

// More tensors than one launch takes, some of them not at a multiple of an access.
TEST_F(FusedOnGpu, AdamW) {
  const AdamWOptions options{.clip = 2};
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t shift : {0, 1}) {
      for (const bool finite : {true, false}) {
        SCOPED_TRACE(testing::Message() << dtype << " " << shift << " " << finite);
        const auto draw = [&](int64_t size) {
          return torch::rand(size + shift, torch::kCUDA).slice(0, shift);
        };
        std::vector<AdamWTensors> tensors, exact;
        for (int i = 0; i < 150; ++i) {
          const int64_t size = i % 50 == 49 ? 1'000'003 : 1 + i * 97;
          const Tensor master = draw(size), weight = master.to(dtype);
          tensors.push_back(
              {weight, (draw(size) - 0.5).to(dtype), master, draw(size), draw(size), i % 2 == 0});
          const AdamWTensors& t = tensors.back();
          const Tensor copy = master.to(torch::kDouble);
          exact.push_back({copy, t.gradient.to(torch::kDouble), copy,
                           t.first_moment.to(torch::kDouble), t.second_moment.to(torch::kDouble),
                           t.decays});
        }
        const Tensor norm = torch::full({}, 3.0f, torch::kCUDA);
        const Tensor rate =
            torch::full({}, 0.01, torch::device(torch::kCUDA).dtype(torch::kDouble));
        const Tensor healthy =
            torch::full({}, finite, torch::device(torch::kCUDA).dtype(torch::kBool));
        const Tensor updates = torch::zeros({}, torch::kCUDA), others = torch::zeros_like(updates);
        for (int step = 0; step < 2; ++step) {
          adamw(tensors, options, rate, norm, healthy, updates);
          adamw_definition(exact, options, rate, norm, healthy, others);
        }
        for (size_t i = 0; i < tensors.size(); ++i) {
          const AdamWTensors& t = tensors[i];
          const auto near = [](const Tensor& a, const Tensor& b) {
            return torch::allclose(a.to(torch::kDouble), b, 1e-5, 1e-6);
          };
          EXPECT_TRUE(near(t.master, exact[i].master)) << i;
          EXPECT_TRUE(near(t.first_moment, exact[i].first_moment)) << i;
          EXPECT_TRUE(near(t.second_moment, exact[i].second_moment)) << i;
          EXPECT_TRUE(torch::equal(t.weight, t.master.to(dtype))) << i;
          EXPECT_TRUE(finite || torch::equal(t.master.to(torch::kDouble), exact[i].master)) << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace pararnn::ops
