// Attention against its definition, a loop over queries; under one mask, and cut into blocks and
// sequences as on a GPU.
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "base/error.hpp"
#include "gradient_test_support.hpp"
#include "ops/attention/attention.hpp"
#include "ops/cuda_graph.hpp"
#include "ops/rotary/rotary.hpp"

namespace pararnn::ops {
namespace {

using test::kDouble;
using torch::Tensor;

/// softmax(q kᵀ/√n) v of a query (H,n) with keys and values (S,H',n), heads one after the other.
Tensor attend_one(const Tensor& query, const Tensor& keys, const Tensor& values) {
  const int64_t group = query.size(0) / keys.size(1);
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < query.size(0); ++h) {
    const Tensor k = keys.select(1, h / group), v = values.select(1, h / group);
    const Tensor scores = k.matmul(query[h]) / std::sqrt(double(query.size(1)));
    heads.push_back(torch::softmax(scores, 0).matmul(v));
  }
  return torch::stack(heads);
}

Tensor attention_definition(const Tensor& queries, const Tensor& keys, const Tensor& values,
                            const Tensor& before) {
  const int64_t batch = queries.size(0), steps = queries.size(1), earlier = keys.size(1) - steps;
  std::vector<Tensor> results;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < steps; ++t) {
      const int64_t own = earlier + t;
      const int64_t first =
          before.defined() ? own - before[before.size(0) == 1 ? 0 : b][t].item<int64_t>() : 0;
      results.push_back(attend_one(queries[b][t], keys[b].slice(0, first, own + 1),
                                   values[b].slice(0, first, own + 1)));
    }
  }
  return torch::stack(results).view(queries.sizes());
}

/// What flash attention gives for sequences of different lengths.
Tensor attend_sequences(const Tensor& queries, const Tensor& keys, const Tensor& values,
                        const Sequences& sequences) {
  const Tensor q = sequences.of_queries.to(torch::kLong), k = sequences.of_keys.to(torch::kLong);
  EXPECT_EQ(sequences.of_queries.scalar_type(), torch::kInt);
  EXPECT_EQ(q[-1].item<int64_t>(), queries.size(0));
  EXPECT_EQ(k[-1].item<int64_t>(), keys.size(0));
  std::vector<Tensor> results;
  for (int64_t i = 0; i + 1 < q.size(0); ++i) {
    const int64_t first = q[i].item<int64_t>(), end = q[i + 1].item<int64_t>();
    const int64_t first_key = k[i].item<int64_t>(), end_key = k[i + 1].item<int64_t>();
    EXPECT_LE(end - first, sequences.longest_queries);
    EXPECT_LE(end_key - first_key, sequences.longest_keys);
    for (int64_t t = first; t < end; ++t) {
      const int64_t own = end_key - end + t;
      results.push_back(attend_one(queries[t], keys.slice(0, first_key, own + 1),
                                   values.slice(0, first_key, own + 1)));
    }
  }
  return torch::stack(results);
}

struct AttentionCase {
  int64_t batch, steps, earlier, heads, key_value_heads, channels;
  double resets;  // the share of steps
};

struct AttentionProblem {
  Tensor queries, keys, values, before;
  bool documents;

  AttentionMask mask() const {
    if (!before.defined()) return {};
    return attention_mask(before, queries.size(0), keys.size(1), documents, queries.options(),
                          queries.size(3));
  }
  AttentionMask in_parts() const {
    return mask_in_parts(before, queries.size(0), keys.size(1), documents, queries.scalar_type());
  }
};

AttentionProblem problem_of(const AttentionCase& c, torch::TensorOptions options = kDouble) {
  const int64_t all = c.steps + c.earlier;
  // Views of one product, as they come.
  const Tensor product =
      torch::randn({c.batch, all, (c.heads + 2 * c.key_value_heads), c.channels}, options);
  const auto part = [&](int64_t first, int64_t heads) { return product.narrow(2, first, heads); };
  AttentionProblem p{.queries = part(0, c.heads).narrow(1, c.earlier, c.steps),
                     .keys = part(c.heads, c.key_value_heads),
                     .values = part(c.heads + c.key_value_heads, c.key_value_heads),
                     .before = {},
                     .documents = c.resets > 0};
  Tensor start, reset;
  const auto on_device = torch::dtype(torch::kLong).device(options.device());
  if (c.earlier > 0) start = torch::randint(c.earlier + 1, {c.batch}, on_device);
  if (c.resets > 0)
    reset = torch::rand({c.batch, c.steps}, options.dtype(torch::kFloat)) < c.resets;
  if (start.defined() || reset.defined())
    p.before = positions_of(c.steps, options.device(), start, reset);
  return p;
}

const std::vector<AttentionCase> kSmallCases{{1, 1, 0, 1, 1, 2, 0},   {2, 7, 0, 4, 4, 6, 0},
                                             {2, 7, 0, 4, 2, 6, 0.3}, {3, 5, 4, 6, 1, 8, 0},
                                             {2, 5, 4, 4, 2, 2, 0.4}, {1, 1, 9, 2, 2, 4, 0},
                                             {2, 1, 3, 2, 1, 4, 0.5}, {2, 30, 50, 2, 1, 4, 0.1}};
// Of more than one block: many documents, few, almost none.
const std::vector<AttentionCase> kLongCases{
    {2, 600, 0, 2, 1, 4, 0.02}, {1, 512, 0, 1, 1, 2, 0.004}, {2, 513, 30, 1, 1, 2, 0.004},
    {1, 520, 0, 1, 1, 2, 0.5},  {2, 300, 0, 1, 1, 2, 1e-9},  {1, 700, 9, 2, 2, 2, 0.01}};

void expect_definition(const AttentionCase& c) {
  SCOPED_TRACE(testing::Message() << c.batch << " " << c.steps << " " << c.earlier << " " << c.heads
                                  << " " << c.key_value_heads << " " << c.resets);
  const AttentionProblem p = problem_of(c);
  const auto& [q, k, v, before, documents] = p;
  const Tensor expected = attention_definition(q, k, v, before);
  EXPECT_TRUE(torch::allclose(causal_attention(q, k, v, p.mask()), expected, 1e-9, 1e-9));
  if (!before.defined()) return;
  EXPECT_TRUE(torch::allclose(causal_attention(q, k, v, p.in_parts(), &attend_sequences), expected,
                              1e-9, 1e-9));
}

TEST(Attention, IsItsDefinition) {
  torch::manual_seed(1);
  for (const AttentionCase& c : kSmallCases) expect_definition(c);
}

TEST(Attention, OfManyBlocksIsItsDefinition) {
  torch::manual_seed(2);
  const torch::NoGradGuard no_grad;
  for (const AttentionCase& c : kLongCases) expect_definition(c);
}

TEST(Attention, GradientsEqualFiniteDifferences) {
  torch::manual_seed(3);
  for (const AttentionCase& c : kSmallCases) {
    const AttentionProblem p = problem_of(c);
    const Tensor q = p.queries.clone().requires_grad_(), k = p.keys.clone().requires_grad_(),
                 v = p.values.clone().requires_grad_();
    test::expect_gradient([&] { return causal_attention(q, k, v, p.mask()); }, {q, k, v});
  }
}

TEST(Attention, GradientsOfSequencesAreThoseOfTheMask) {
  torch::manual_seed(4);
  for (const AttentionCase& c :
       {AttentionCase{2, 270, 0, 2, 1, 2, 0.02}, {1, 260, 0, 1, 1, 2, 0.3}}) {
    const AttentionProblem p = problem_of(c);
    const Tensor q = p.queries.clone().requires_grad_(), k = p.keys.clone().requires_grad_(),
                 v = p.values.clone().requires_grad_();
    const Tensor dy = torch::randn_like(q);
    const auto masked =
        torch::autograd::grad({causal_attention(q, k, v, p.mask())}, {q, k, v}, {dy});
    const auto cut = torch::autograd::grad(
        {causal_attention(q, k, v, p.in_parts(), &attend_sequences)}, {q, k, v}, {dy});
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(torch::allclose(cut[i], masked[i], 1e-9, 1e-9)) << i;
  }
}

TEST(Attention, AStepLooksAtWhatIsThere) {
  torch::manual_seed(5);
  for (const auto& [heads, key_value_heads] : {std::pair{2, 2}, {6, 2}, {4, 1}}) {
    const Tensor q = torch::randn({3, 1, heads, 4}, kDouble);
    const Tensor k = torch::randn({3, 9, key_value_heads, 4}, kDouble), v = torch::randn_like(k);
    const Tensor first = torch::tensor({0, 2, 4}), last = torch::tensor({8, 5, 4});
    const Tensor got = attention_step(q, k, v, first, last);
    for (int b = 0; b < 3; ++b) {
      const int64_t from = first[b].item<int64_t>(), end = last[b].item<int64_t>() + 1;
      const Tensor expected =
          attend_one(q[b][0], k[b].slice(0, from, end), v[b].slice(0, from, end));
      EXPECT_TRUE(torch::allclose(got[b][0], expected, 1e-9, 1e-9));
    }
  }
}

TEST(AttentionInputs, AreRotatedPartsOfAProduct) {
  torch::manual_seed(6);
  const Tensor x = test::leaf({2, 5, 12}), weight = test::leaf({(4 + 2 * 2) * 6, 12});
  const Tensor positions = positions_of(5, torch::kCPU, torch::tensor({3, 0}));
  const auto [q, k, v] = attention_inputs(x, weight, 4, 2, positions, 100);
  const Tensor product = torch::linear(x, weight).unflatten(2, {8, 6});
  const auto [expected_q, expected_k] =
      rotary(product.narrow(2, 0, 4), product.narrow(2, 4, 2), positions, 100);
  EXPECT_TRUE(torch::allclose(q, expected_q, 1e-12, 1e-12));
  EXPECT_TRUE(torch::allclose(k, expected_k, 1e-12, 1e-12));
  EXPECT_TRUE(torch::allclose(v, product.narrow(2, 6, 2), 1e-12, 1e-12));
  EXPECT_EQ(q.storage().data(), v.storage().data());
  // Of a part alone, and of none of the weights.
  const Tensor of_values = torch::autograd::grad({v.sum()}, {x}, {}, /*retain_graph=*/true)[0];
  const Tensor sums = weight.narrow(0, 6 * 6, 12).sum(0).expand_as(of_values);
  EXPECT_TRUE(torch::allclose(of_values, sums, 1e-12, 1e-12));
  EXPECT_THROW(torch::autograd::grad({q.sum()}, {x}, {}, true, /*create_graph=*/true), Error);
  test::expect_gradient(
      [&] {
        const auto parts = attention_inputs(x, weight, 4, 2, positions, 100);
        return torch::cat({parts.queries, parts.keys, parts.values}, 2);
      },
      {x, weight});
}

class AttentionOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    torch::manual_seed(7);
  }
};

void expect_near(const Tensor& got, const Tensor& exact, const char* what) {
  EXPECT_LE((got.to(torch::kDouble) - exact).abs().max().item<double>(),
            2e-2 * exact.abs().max().item<double>())
      << what;
}

TEST_F(AttentionOnGpu, IsTheDefinition) {
  for (const auto dtype : {torch::kBFloat16, torch::kHalf, torch::kFloat}) {
    for (const AttentionCase& c : {AttentionCase{2, 100, 0, 4, 4, 64, 0},
                                   {2, 700, 0, 4, 2, 64, 0},
                                   {2, 700, 0, 4, 2, 64, 0.01},
                                   {3, 1024, 0, 2, 2, 128, 0.003},
                                   {2, 600, 0, 2, 1, 64, 0.3},
                                   {2, 77, 0, 2, 1, 64, 0.1},
                                   {2, 300, 200, 4, 2, 64, 0},
                                   {2, 513, 40, 2, 2, 80, 0.01},
                                   {2, 300, 0, 2, 1, 6, 0.02}}) {
      SCOPED_TRACE(testing::Message() << dtype << " " << c.steps << " " << c.earlier << " "
                                      << c.channels << " " << c.resets);
      const AttentionProblem p = problem_of(c, torch::dtype(dtype).device(torch::kCUDA));
      const auto leaf = [](const Tensor& x) { return x.detach().requires_grad_(); };
      const std::vector<Tensor> parts{leaf(p.queries), leaf(p.keys), leaf(p.values)};
      std::vector<Tensor> exact;
      for (const Tensor& part : parts) exact.push_back(leaf(part.detach().to(torch::kDouble)));
      Tensor before = p.before;
      if (!before.defined()) before = positions_of(c.steps, torch::kCUDA);
      const Tensor expected = causal_attention(
          exact[0], exact[1], exact[2], whole_mask(before, c.steps + c.earlier, torch::kDouble));
      const Tensor y = causal_attention(parts[0], parts[1], parts[2], p.mask());
      const Tensor dy = torch::randn_like(y);
      const auto found = torch::autograd::grad({y}, parts, {dy});
      const auto right = torch::autograd::grad({expected}, exact, {dy.to(torch::kDouble)});
      expect_near(y, expected.detach(), "result");
      for (int i = 0; i < 3; ++i) expect_near(found[i], right[i], "gradient");
      const torch::NoGradGuard no_grad;
      const Tensor again = causal_attention(parts[0], parts[1], parts[2], p.mask());
      expect_near(again, expected, "result without a gradient");
    }
  }
}

TEST_F(AttentionOnGpu, IsCaptured) {
  const c10::Device gpu(torch::kCUDA, 0);
  const c10::StreamGuard stream(
      c10::impl::VirtualGuardImpl(gpu.type()).getStreamFromGlobalPool(gpu));
  const auto options = torch::dtype(torch::kBFloat16).device(torch::kCUDA);
  const Tensor x = torch::randn({2, 600, 128}, options).requires_grad_();
  const Tensor weight = (torch::randn({(2 + 2) * 64, 128}, options) / 11).requires_grad_();
  const Tensor reset = torch::rand({2, 600}, torch::kCUDA) < 0.01;
  Tensor y, dx;
  const auto run = [&] {
    const Tensor positions = positions_of(600, torch::kCUDA, {}, reset);
    const auto [q, k, v] = attention_inputs(x, weight, 2, 1, positions, 10000);
    y = causal_attention(q, k, v, attention_mask(positions, 2, 600, true, options, 64));
    dx = torch::autograd::grad({y.sum()}, {x})[0];
  };
  run();
  const auto replay = capture_graph(run);
  const Tensor captured_y = y, captured_dx = dx;
  Tensor(reset).copy_(torch::rand({2, 600}, torch::kCUDA) < 0.02);
  replay();
  run();
  EXPECT_TRUE(torch::equal(captured_y, y));
  expect_near(captured_dx, dx.to(torch::kDouble), "gradient");
}

}  // namespace
}  // namespace pararnn::ops
