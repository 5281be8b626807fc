// The parts of a model on a GPU, of more numbers than 32 bits count: their last rows are what those
// are alone, and so are the gradients of the parameters where no other row has one.
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>
#include <vector>

#include "ops/adamw/adamw.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"
#include "ops/cross_entropy/cross_entropy.hpp"
#include "ops/embedding/embedding.hpp"
#include "ops/head_projection/head_projection.hpp"
#include "ops/residual/residual.hpp"
#include "ops/rms_norm/rms_norm.hpp"
#include "ops/swiglu/swiglu.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;
using Tensors = std::vector<Tensor>;

constexpr int64_t kMany = int64_t{1} << 31, kLast = 500;

class LargeOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    constexpr size_t kNeeded = size_t{70} << 30;
    if (at::cuda::getCurrentDeviceProperties()->totalGlobalMem < kNeeded) {
      GTEST_SKIP() << "the GPU has too little memory";
    }
    c10::cuda::CUDACachingAllocator::emptyCache();
    torch::manual_seed(1);
  }
  void TearDown() override {
    if (torch::cuda::is_available()) c10::cuda::CUDACachingAllocator::emptyCache();
  }
};

const auto kHalf = torch::dtype(torch::kBFloat16).device(torch::kCUDA);
const auto kSingle = torch::dtype(torch::kFloat).device(torch::kCUDA);

Tensor last(const Tensor& t) { return t.narrow(0, t.size(0) - kLast, kLast); }

void expect_near(const Tensor& got, const Tensor& expected, const char* what, size_t i) {
  const double error = (got - expected).to(torch::kFloat).abs().max().item<double>();
  const double scale = expected.to(torch::kFloat).abs().max().item<double>();
  EXPECT_GT(scale, 0) << what << " " << i;
  EXPECT_LE(error, 1e-2 * scale) << what << " " << i;
}

/// f of rows and of parameters gives rows. `rows_alone`: the same of the last rows, if that is more
/// than f of them.
void expect_last_rows(
    const std::function<Tensors(const Tensors& rows, const Tensors& parameters)>& f, Tensors rows,
    Tensors parameters, std::function<Tensors(const Tensors&, const Tensors&)> f_alone = {}) {
  if (!f_alone) f_alone = f;
  Tensors of_all, alone, of_alone;
  for (const Tensor& t : rows) {
    const bool real = t.is_floating_point();
    alone.push_back(last(t).clone().set_requires_grad(real));
    of_all.push_back(t.detach().set_requires_grad(real));
  }
  for (const Tensor& p : parameters) p.set_requires_grad(true);
  const auto wanted = [&](const Tensors& given) {
    Tensors tensors;
    for (const Tensor& t : given) {
      if (t.requires_grad()) tensors.push_back(t);
    }
    tensors.insert(tensors.end(), parameters.begin(), parameters.end());
    return tensors;
  };
  const Tensors results_alone = f_alone(alone, parameters);
  Tensors dy_alone;
  for (const Tensor& y : results_alone) dy_alone.push_back(torch::randn_like(y));
  const Tensors right = torch::autograd::grad(results_alone, wanted(alone), dy_alone);

  Tensors results = f(of_all, parameters), dy;
  size_t large = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    expect_near(last(results[i]).detach(), results_alone[i].detach(), "result", i);
    dy.push_back(torch::zeros_like(results[i]));
    last(dy.back()).copy_(dy_alone[i]);
    large += results[i].numel() > kMany;
  }
  for (const Tensor& t : rows) large += t.numel() > kMany;
  EXPECT_GT(large, 0u);
  rows.clear();
  const Tensors found = torch::autograd::grad(results, wanted(of_all), dy);
  for (size_t i = 0; i < found.size(); ++i) {
    const bool of_parameter = i >= found.size() - parameters.size();
    expect_near(of_parameter ? found[i] : last(found[i]), right[i], "gradient", i);
  }
}

TEST_F(LargeOnGpu, RmsNorm) {
  const int64_t width = 768, count = kMany / width + kLast;
  expect_last_rows(
      [](const Tensors& t, const Tensors& p) {
        const auto [sum, normed] = add_rms_norm(t[0], p[0], t[1], p[1], 1e-5, torch::kBFloat16);
        return Tensors{sum, normed};
      },
      {torch::randn({count, width}, kHalf), torch::randn({count, width}, kHalf)},
      {torch::randn({width}, kSingle), torch::randn({width}, kSingle)});
  expect_last_rows(
      [](const Tensors& t, const Tensors& p) {
        return Tensors{rms_norm(t[0], p[0], 1e-5, torch::kBFloat16, t[1].chunk(2, -1)[1])};
      },
      {torch::randn({count, width}, kHalf), torch::randn({count, 2 * width}, kHalf)},
      {torch::randn({width}, kSingle)});
}

TEST_F(LargeOnGpu, Residual) {
  const int64_t width = 768, count = kMany / width + kLast;
  expect_last_rows(
      [](const Tensors& t, const Tensors& p) { return Tensors{add_scaled(t[0], p[0], t[1])}; },
      {torch::randn({count, width}, kHalf), torch::randn({count, width}, kHalf)},
      {torch::randn({width}, kSingle)});
}

TEST_F(LargeOnGpu, Swiglu) {
  const int64_t width = 2048, count = kMany / width + kLast;
  expect_last_rows([](const Tensors& t, const Tensors&) { return Tensors{swiglu(t[0])}; },
                   {torch::randn({count, 2 * width}, kHalf)}, {});
}

TEST_F(LargeOnGpu, Convolution) {
  const int64_t width = 768, count = kMany / width + kLast, taps = 4;
  const Tensor x = torch::randn({count, width}, kHalf);
  const Tensor nothing = torch::zeros({1, taps - 1, width}, kHalf);
  const Tensor before = x.narrow(0, count - kLast - (taps - 1), taps - 1).unsqueeze(0).clone();
  // Alone, and with bias and silu.
  for (const bool silu : {false, true}) {
    const auto after = [silu](const Tensor& earlier) {
      return [silu, earlier](const Tensors& t, const Tensors& p) {
        const Tensor bias = silu ? p[1] : Tensor();
        return Tensors{causal_convolution(t[0].unsqueeze(0), p[0], earlier, {}, bias).squeeze(0)};
      };
    };
    Tensors parameters{torch::randn({taps, width}, kSingle)};
    if (silu) parameters.push_back(torch::randn({width}, kSingle));
    expect_last_rows(after(nothing), {x}, parameters, after(before));
  }
}

TEST_F(LargeOnGpu, HeadProjection) {
  const int64_t width = 768, inputs = 3, count = kMany / (inputs * width) + kLast;
  for (const int64_t heads : {1, 4}) {
    const int64_t channels = width / heads;
    expect_last_rows(
        [](const Tensors& t, const Tensors& p) {
          return Tensors{head_projection(t[0].unsqueeze(0), p[0], p[1]).squeeze(0)};
        },
        {torch::randn({count, width}, kHalf)},
        {torch::randn({heads, inputs * channels, channels}, kHalf),
         torch::randn({heads, inputs * channels}, kSingle)});
  }
}

TEST_F(LargeOnGpu, Embedding) {
  const int64_t width = 2048, count = kMany / width + kLast, vocabulary = 1000;
  const Tensor tokens =
      torch::randint(vocabulary, {count}, torch::dtype(torch::kLong).device(torch::kCUDA));
  expect_last_rows(
      [](const Tensors& t, const Tensors& p) { return Tensors{ops::embedding(p[0], t[0])}; },
      {tokens}, {torch::randn({vocabulary, width}, kHalf)});
}

TEST_F(LargeOnGpu, CrossEntropy) {
  const int64_t width = 64, count = kMany / width + kLast, vocabulary = 257;
  const Tensor hidden = torch::randn({count, width}, kHalf).requires_grad_();
  const Tensor weight = torch::randn({vocabulary, width}, kHalf);
  const Tensor targets =
      torch::randint(vocabulary, {count}, torch::dtype(torch::kLong).device(torch::kCUDA));
  ASSERT_GT(hidden.numel(), kMany);
  const CrossEntropy all = linear_cross_entropy(hidden, weight, targets, {.z_loss = 1e-3});
  const Tensor dhidden = torch::autograd::grad({all.total * 1e6}, {hidden})[0];
  const Tensor alone = last(hidden).detach().clone().requires_grad_();
  const double share = double(kLast) / double(count);
  const CrossEntropy part =
      linear_cross_entropy(alone, weight, last(targets), {.z_loss = 1e-3, .scale = share});
  expect_near(last(dhidden), torch::autograd::grad({part.total * 1e6}, {alone})[0], "gradient", 0);
  EXPECT_NEAR(all.cross_entropy.item<double>(), part.cross_entropy.item<double>(), 3);
}

TEST_F(LargeOnGpu, AdamW) {
  const int64_t count = kMany + kLast;
  const Tensor master = torch::rand({count}, kSingle), gradient = torch::rand({count}, kHalf);
  const Tensor first = torch::zeros({count}, kSingle), second = torch::zeros({count}, kSingle);
  const AdamWTensors all{master.to(torch::kBFloat16), gradient, master, first, second};
  const AdamWTensors part{last(all.weight).clone(), last(gradient).clone(), last(master).clone(),
                          last(first).clone(), last(second).clone()};
  for (const AdamWTensors& t : {all, part}) {
    adamw(std::span(&t, 1), {}, torch::full({}, 0.01, kSingle.dtype(torch::kDouble)),
          torch::ones({}, kSingle), torch::ones({}, kSingle.dtype(torch::kBool)),
          torch::zeros({}, kSingle));
  }
  EXPECT_TRUE(torch::equal(last(master), part.master));
  EXPECT_TRUE(torch::equal(last(all.weight), part.weight));
  EXPECT_TRUE(torch::equal(last(second), part.second_moment));
}

}  // namespace
}  // namespace pararnn::ops
