// The state-space recurrence in chunks equals the plain loop over steps, and its gradients finite
// differences: whatever the shapes, the groups, and where rows start anew.
#include "ops/ssd/ssd.hpp"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <random>
#include <vector>

#include "base/error.hpp"
#include "error_test_support.hpp"
#include "gradient_test_support.hpp"
#include "ops/halves/halves.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

struct SsdShape {
  int64_t batch, steps, heads, channels, groups, state;
};

struct SsdInputs {
  Tensor x, dt, a, b, c, d, h0, reset;

  std::vector<Tensor> leaves() const { return {x, dt, a, b, c, d, h0}; }
  std::pair<Tensor, Tensor> run() const { return ssd(x, dt, a, b, c, d, h0, reset); }
  /// Each as a leaf in a dtype and on a device; what is never rounded in its arithmetic's.
  SsdInputs to(torch::ScalarType dtype, torch::Device device = torch::kCPU) const {
    const auto wide = dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
    const auto as = [&](const Tensor& t, torch::ScalarType type) {
      return t.detach().to(device, type).requires_grad_();
    };
    return {as(x, dtype), as(dt, wide), as(a, wide),  as(b, dtype),
            as(c, dtype), as(d, wide),  as(h0, wide), reset.defined() ? reset.to(device) : reset};
  }
};

/// x, b and c are parts of one tensor. `anew`: the share of steps before which rows start anew.
SsdInputs random_ssd(const SsdShape& s, double anew = 0) {
  const int64_t width = s.heads * s.channels, shared = s.groups * s.state;
  const auto in = torch::TensorOptions(torch::kDouble);
  const Tensor all = torch::randn({s.batch, s.steps, width + 2 * shared}, in);
  return {all.narrow(2, 0, width).unflatten(2, {s.heads, s.channels}),
          torch::rand({s.batch, s.steps, s.heads}, in),
          -torch::rand({s.heads}, in) * 2,
          all.narrow(2, width, shared).unflatten(2, {s.groups, s.state}),
          all.narrow(2, width + shared, shared).unflatten(2, {s.groups, s.state}),
          torch::randn({s.heads}, in),
          torch::randn({s.batch, s.heads, s.channels, s.state}, in),
          anew > 0 ? torch::rand({s.batch, s.steps}) < anew : Tensor()};
}

/// What the loop gives, and the logarithms of its decays, (B,T,H).
struct SsdLoop {
  Tensor y, hT, log;
};

/// The recurrence as it is written, step by step.
SsdLoop ssd_loop(const SsdInputs& in) {
  const int64_t heads_of_group = in.x.size(2) / in.b.size(2);
  const Tensor b = in.b.repeat_interleave(heads_of_group, 2),
               c = in.c.repeat_interleave(heads_of_group, 2);
  const Tensor log = in.a * in.dt;
  Tensor h = in.h0;
  std::vector<Tensor> y;
  for (int64_t t = 0; t < in.x.size(1); ++t) {
    if (in.reset.defined()) {
      h = torch::where(in.reset.select(1, t).view({-1, 1, 1, 1}), torch::zeros_like(h), h);
    }
    const Tensor dt = in.dt.select(1, t), x = in.x.select(1, t);
    h = torch::exp(log.select(1, t)).unsqueeze(-1).unsqueeze(-1) * h +
        torch::einsum("bh,bhp,bhn->bhpn", {dt, x, b.select(1, t)});
    y.push_back(torch::einsum("bhpn,bhn->bhp", {h, c.select(1, t)}) + in.d.unsqueeze(-1) * x);
  }
  return {torch::stack(y, 1), h, log};
}

/// Relative to the largest number of the expected, or to `scale`.
void expect_near(const Tensor& got, const Tensor& expected, double tolerance, const char* what,
                 double scale = 0) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const Tensor exact = expected.to(torch::kCPU, torch::kDouble);
  const double error = (got.to(torch::kCPU, torch::kDouble) - exact).abs().max().item<double>();
  scale = std::max(scale, 1e-3 + exact.abs().max().item<double>());
  EXPECT_LE(error, tolerance * scale) << what;
}

/// Values and gradients of `given`, rounded from `exact`, against the loop over that.
void expect_the_loop_of(const SsdInputs& given, const SsdInputs& exact, double tolerance) {
  const auto [y, hT] = given.run();
  const auto [right_y, right_hT, log] = ssd_loop(exact);
  expect_near(y, right_y, tolerance, "y");
  expect_near(hT, right_hT, tolerance, "hT");
  const Tensor dy = torch::randn(y.sizes(), torch::kDouble).to(y.scalar_type()),
               dhT = torch::randn(hT.sizes(), torch::kDouble).to(hT.scalar_type());
  const auto got =
      torch::autograd::grad({y, hT}, given.leaves(), {dy.to(y.device()), dhT.to(hT.device())});
  std::vector<Tensor> of = exact.leaves();
  of.push_back(log);
  const auto right = torch::autograd::grad({right_y, right_hT}, of,
                                           {dy.to(torch::kDouble), dhT.to(torch::kDouble)});
  // That of a is a sum over all steps, in which much cancels.
  const double sum = (right.back().abs().sum() * exact.dt.max()).item<double>();
  const char* names[] = {"dx", "ddt", "da", "db", "dc", "dd", "dh0"};
  for (size_t i = 0; i < got.size(); ++i) {
    expect_near(got[i], right[i], tolerance, names[i], i == 2 ? sum : 0);
  }
}

std::vector<SsdShape> ssd_shapes() {
  std::vector<SsdShape> shapes{{1, 1, 1, 1, 1, 1}, {2, 128, 2, 3, 1, 4}, {1, 300, 4, 2, 2, 3}};
  std::mt19937 random(3);
  const auto up_to = [&](int64_t largest) { return 1 + int64_t(random()) % largest; };
  for (int i = 0; i < 5; ++i) {
    const int64_t groups = up_to(3);
    shapes.push_back({up_to(3), up_to(400), groups * up_to(3), up_to(9), groups, up_to(9)});
  }
  return shapes;
}

TEST(Ssd, EqualsTheLoop) {
  torch::manual_seed(1);
  for (const SsdShape& shape : ssd_shapes()) {
    for (const double anew : {0.0, 0.02, 0.6}) {
      SCOPED_TRACE(testing::Message() << "T" << shape.steps << " H" << shape.heads << " G"
                                      << shape.groups << ", anew " << anew);
      const SsdInputs inputs = random_ssd(shape, anew);
      if (anew > 0) inputs.reset.select(1, 0).fill_(true);
      expect_the_loop_of(inputs.to(torch::kDouble), inputs.to(torch::kDouble), 1e-11);
      expect_the_loop_of(inputs.to(torch::kFloat), inputs.to(torch::kDouble), 2e-5);
      const SsdInputs rounded = inputs.to(torch::kBFloat16);
      expect_the_loop_of(rounded, rounded.to(torch::kDouble), 3e-2);
    }
  }
}

TEST(Ssd, GradientsAreFiniteDifferences) {
  torch::manual_seed(2);
  for (const double anew : {0.0, 0.1}) {
    const SsdInputs in = random_ssd({2, 150, 4, 3, 2, 5}, anew).to(torch::kDouble);
    test::expect_gradient([&] { return in.run().first; }, in.leaves());
    test::expect_gradient([&] { return in.run().second; }, {in.x, in.dt, in.a, in.b, in.h0});
  }
}

TEST(Ssd, PiecesAreTheWhole) {
  torch::manual_seed(3);
  const torch::NoGradGuard no_grad;
  const SsdInputs in = random_ssd({2, 333, 2, 4, 1, 3}, 0.01);
  const auto [y, hT] = in.run();
  std::vector<Tensor> pieces;
  Tensor h = in.h0;
  for (int64_t begin = 0, length = 1; begin < 333; begin += length, length = 1 + 2 * length) {
    length = std::min(length, 333 - begin);
    const auto piece = [&](const Tensor& t) { return t.narrow(1, begin, length); };
    const auto [part, last] =
        ssd(piece(in.x), piece(in.dt), in.a, piece(in.b), piece(in.c), in.d, h, piece(in.reset));
    pieces.push_back(part);
    h = last;
  }
  expect_near(torch::cat(pieces, 1), y, 1e-12, "y");
  expect_near(h, hT, 1e-12, "hT");
}

TEST(Ssd, WithoutAStartItStartsWithZeros) {
  torch::manual_seed(8);
  SsdInputs in = random_ssd({2, 140, 2, 4, 1, 3}).to(torch::kDouble);
  const auto results = [&](const std::optional<Tensor>& h0) {
    const auto [y, hT] = ssd(in.x, in.dt, in.a, in.b, in.c, in.d, h0);
    auto found = torch::autograd::grad({y.square().sum() + hT.square().sum()},
                                       {in.x, in.dt, in.a, in.b, in.c, in.d});
    found.push_back(y);
    return found;
  };
  const auto without = results({}), zeros = results(torch::zeros_like(in.h0));
  for (size_t i = 0; i < zeros.size(); ++i) EXPECT_TRUE(torch::equal(without[i], zeros[i])) << i;
}

TEST(Ssd, AStepIsAStepOfTheLoop) {
  torch::manual_seed(4);
  const SsdInputs in = random_ssd({3, 1, 4, 5, 2, 6});
  const auto [y, h] = ssd_step(in.x.select(1, 0), in.dt.select(1, 0), in.a, in.b.select(1, 0),
                               in.c.select(1, 0), in.d, in.h0);
  const auto [right_y, right_h, log] = ssd_loop(in);
  expect_near(y.unsqueeze(1), right_y, 1e-12, "y");
  expect_near(h, right_h, 1e-12, "h");
}

/// A row of documents equals each alone, forward and backward, to the last bit of what the decay
/// between them leaves: nothing.
TEST(Ssd, DocumentsAreApart) {
  torch::manual_seed(5);
  const SsdInputs in = random_ssd({1, 290, 2, 4, 1, 3});
  const Tensor reset = torch::zeros({1, 290}, torch::kBool);
  const std::vector<int64_t> starts{0, 1, 2, 50, 128, 130, 290};
  for (size_t i = 0; i + 1 < starts.size(); ++i) reset[0][starts[i]] = true;
  SsdInputs row = in.to(torch::kDouble);
  row.reset = reset;
  const auto [y, hT] = row.run();
  const Tensor dy = torch::randn_like(y);
  const auto found = torch::autograd::grad({y}, {row.x, row.dt, row.b, row.c, row.h0}, {dy});
  EXPECT_EQ(found[4].abs().max().item<double>(), 0);  // of what the first start has emptied
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    const auto part = [&](const Tensor& t) {
      return t.narrow(1, starts[i], starts[i + 1] - starts[i]);
    };
    SsdInputs alone = in;
    alone.h0 = torch::zeros_like(in.h0);
    for (Tensor SsdInputs::*of_steps :
         {&SsdInputs::x, &SsdInputs::dt, &SsdInputs::b, &SsdInputs::c})
      alone.*of_steps = part(in.*of_steps);
    alone = alone.to(torch::kDouble);
    const auto [own_y, own_hT] = alone.run();
    expect_near(part(y), own_y, 1e-12, "y");
    if (starts[i + 1] == 290) expect_near(hT, own_hT, 1e-12, "hT");
    const auto own =
        torch::autograd::grad({own_y}, {alone.x, alone.dt, alone.b, alone.c}, {part(dy)});
    for (size_t n = 0; n < own.size(); ++n) expect_near(part(found[n]), own[n], 1e-11, "gradient");
  }
}

TEST(Ssd, DecaysBelowTheSmallestNumberAreZeros) {
  torch::manual_seed(6);
  SsdInputs in = random_ssd({1, 200, 2, 3, 1, 4}, 0.05);
  in.dt.mul_(1e4);
  in.dt.narrow(1, 20, 5).zero_();
  expect_the_loop_of(in.to(torch::kDouble), in.to(torch::kDouble), 1e-10);
}

/// x, b and c as parts of what one convolution gives: as copies of them, and with one gradient.
void expect_parts_of_one_tensor(torch::ScalarType dtype, torch::Device device, double tolerance) {
  const SsdShape s{2, 150, 4, 16, 2, 16};
  const SsdInputs in = random_ssd(s).to(dtype, device);
  const Tensor all =
      torch::cat({in.x.flatten(2), in.b.flatten(2), in.c.flatten(2)}, 2).detach().requires_grad_();
  const std::vector<std::vector<int64_t>> shapes{
      {s.heads, s.channels}, {s.groups, s.state}, {s.groups, s.state}};
  const auto parts = split_parts(all * 1, shapes);
  const auto [y, hT] = ssd(parts[0], in.dt, in.a, parts[1], parts[2], in.d, in.h0);
  const auto [copied_y, copied_hT] = in.run();
  expect_near(y, copied_y, tolerance, "y");
  const Tensor dy = torch::randn_like(y);
  const auto found = torch::autograd::grad({y}, {parts[0], all}, {dy});
  const auto expected = torch::autograd::grad({copied_y}, {in.x, in.b, in.c}, {dy});
  expect_near(
      found[1],
      torch::cat({expected[0].flatten(2), expected[1].flatten(2), expected[2].flatten(2)}, 2),
      tolerance, "gradient of all parts");
  EXPECT_EQ(found[0].stride(1), all.size(2));  // made in its place
}

TEST(Ssd, PartsOfOneTensorHaveOneGradient) {
  torch::manual_seed(9);
  expect_parts_of_one_tensor(torch::kDouble, torch::kCPU, 1e-12);
  expect_parts_of_one_tensor(torch::kBFloat16, torch::kCPU, 1e-2);
}

TEST(Ssd, BadSizesAreRefused) {
  const SsdInputs in = random_ssd({1, 3, 3, 2, 2, 2});
  expect_holds(error_of([&] { in.run(); }), "groups must divide heads: 2 does not divide 3");
}

class SsdOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    torch::manual_seed(7);
  }
};

TEST_F(SsdOnGpu, PartsOfOneTensorHaveOneGradient) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    expect_parts_of_one_tensor(dtype, torch::kCUDA, dtype == torch::kFloat ? 1e-4 : 1e-2);
  }
}

TEST_F(SsdOnGpu, EqualsTheLoop) {
  // Those of models, which have kernels of their own, first. Each of the others is a compilation of
  // ten kernels in each dtype.
  std::vector<SsdShape> shapes{{2, 400, 4, 64, 1, 128},
                               {1, 129, 4, 64, 2, 64},
                               {2, 40, 6, 32, 2, 32},
                               {1, 30, 5, 64, 1, 128}};
  for (const SsdShape& shape : ssd_shapes()) {
    if (shapes.size() < 8) shapes.push_back(shape);
  }
  for (const SsdShape& shape : shapes) {
    for (const double anew : {0.0, 0.02, 0.6}) {
      for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
        SCOPED_TRACE(testing::Message() << dtype << " T" << shape.steps << " H" << shape.heads
                                        << " G" << shape.groups << ", anew " << anew);
        const SsdInputs rounded = random_ssd(shape, anew).to(dtype);
        expect_the_loop_of(rounded.to(dtype, torch::kCUDA), rounded.to(torch::kDouble),
                           dtype == torch::kFloat ? 1e-4 : 3e-2);
      }
    }
  }
}

}  // namespace
}  // namespace pararnn::ops
