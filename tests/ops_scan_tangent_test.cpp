// Forward-mode differentiation of scan and step: equal to finite differences, for every cell and
// plan, and differentiable itself.
#include <ATen/ops/_make_dual.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/cuda.h>

#include "ops/scan/scan_kernels.hpp"
#include "ops_test_support.hpp"

namespace pararnn {
namespace {

/// f's outputs and their tangents, f being given a function that makes duals.
template <class F>
std::pair<std::vector<Tensor>, std::vector<Tensor>> with_tangents(F&& f) {
  const uint64_t level = torch::autograd::forward_ad::enter_dual_level();
  std::vector<Tensor> values, tangents;
  {
    const auto dual = [&](const Tensor& t, const Tensor& along) {
      return at::_make_dual(t, along, static_cast<int64_t>(level));
    };
    for (const Tensor& t : f(dual)) {
      values.push_back(t._fw_primal(0));
      tangents.push_back(t._fw_grad(0).defined() ? t._fw_grad(0).clone() : Tensor());
    }
  }
  torch::autograd::forward_ad::exit_dual_level(level);
  return {values, tangents};
}

std::vector<Tensor> outputs(const std::tuple<Tensor, Tensor>& t) {
  return {std::get<0>(t), std::get<1>(t)};
}

struct Direction {
  Tensor u, w, h0;
};
Direction random_direction(const Arguments& a) {
  return {torch::randn_like(a.u), torch::randn_like(a.w), torch::randn_like(a.h0)};
}

/// (f(x + e) - f(x - e)) / 2e along the direction.
template <class F>
std::vector<Tensor> differences(const Arguments& a, const Direction& d, F&& f) {
  const double e = 1e-6;
  const std::vector<Tensor> plus = f(a.u + e * d.u, a.w + e * d.w, a.h0 + e * d.h0);
  const std::vector<Tensor> minus = f(a.u - e * d.u, a.w - e * d.w, a.h0 - e * d.h0);
  std::vector<Tensor> result;
  for (size_t i = 0; i < plus.size(); ++i) result.push_back((plus[i] - minus[i]) / (2 * e));
  return result;
}

TEST(ScanTangent, IsTheDerivativeOfTheScan) {
  for (const CellDefinition& cell : built_in_cells()) {
    const Arguments a = random_arguments(cell, 2, 90, 3, torch::kFloat64, 41);
    const Direction d = random_direction(a);
    for (const char* plan : kPlans) {
      SCOPED_TRACE(cell.name + " " + plan);
      const ScanOptions options{plan, 32};
      const auto run = [&](const Tensor& u, const Tensor& w, const Tensor& h0) {
        return outputs(scan(u, w, h0, cell.key(), options));
      };
      const auto expected = differences(a, d, run);
      const auto [values, tangents] = with_tangents(
          [&](const auto& dual) { return run(dual(a.u, d.u), dual(a.w, d.w), dual(a.h0, d.h0)); });
      const std::vector<Tensor> plain = run(a.u, a.w, a.h0);
      for (size_t i = 0; i < expected.size(); ++i) {
        expect_close(tangents[i], expected[i], 1e-7, "tangent");
        EXPECT_TRUE(torch::equal(values[i], plain[i]));
      }
    }
  }
}

TEST(ScanTangent, OfEachArgumentAloneAddUp) {
  const CellDefinition& cell = find_cell("lstm");
  const Arguments a = random_arguments(cell, 1, 40, 4, torch::kFloat64, 42);
  const Direction d = random_direction(a);
  const auto tangent = [&](bool u, bool w, bool h0) {
    return with_tangents([&](const auto& dual) {
             return outputs(scan(u ? dual(a.u, d.u) : a.u, w ? dual(a.w, d.w) : a.w,
                                 h0 ? dual(a.h0, d.h0) : a.h0, "lstm"));
           })
        .second;
  };
  const auto all = tangent(true, true, true), of_u = tangent(true, false, false),
             of_w = tangent(false, true, false), of_h0 = tangent(false, false, true);
  for (size_t i = 0; i < all.size(); ++i) {
    expect_close(of_u[i] + of_w[i] + of_h0[i], all[i], 1e-12, "sum");
    EXPECT_GT(of_u[i].abs().max().item<double>(), 0);
  }
}

TEST(ScanTangent, OfAStep) {
  const Arguments a = random_arguments(find_cell("gru"), 3, 1, 5, torch::kFloat64, 43);
  const Direction d = random_direction(a);
  const auto run = [](const Tensor& u, const Tensor& w, const Tensor& h) {
    return outputs(step(u.select(1, 0), w, h, "gru"));
  };
  const auto expected = differences(a, d, run);
  const auto [values, tangents] = with_tangents(
      [&](const auto& dual) { return run(dual(a.u, d.u), dual(a.w, d.w), dual(a.h0, d.h0)); });
  for (size_t i = 0; i < expected.size(); ++i) expect_close(tangents[i], expected[i], 1e-8, "step");
}

TEST(ScanTangent, IsDifferentiableItself) {
  const Arguments a = random_arguments(find_cell("gru"), 1, 30, 3, torch::kFloat64, 44);
  const Direction d = random_direction(a);
  const auto sum_along = [&](const Tensor& w) {
    return std::get<0>(
               scan_tangent(a.u, w, a.h0, d.u, d.w, d.h0, "gru", ScanOptions{"speculative", 16}))
        .square()
        .sum();
  };
  const Tensor w = a.w.clone().requires_grad_();
  const Tensor gradient = torch::autograd::grad({sum_along(w)}, {w})[0];
  const double e = 1e-6;
  const Tensor along = torch::randn_like(w);
  torch::NoGradGuard no_grad;
  const double expected =
      ((sum_along(a.w + e * along) - sum_along(a.w - e * along)) / (2 * e)).item<double>();
  EXPECT_NEAR((gradient * along).sum().item<double>(), expected, 1e-6 * (1 + std::abs(expected)));
}

TEST(ScanTangent, OfACellOfManyNumbers) {
  const CellDefinition& cell = register_cell(define_cell(R"(
#include "pararnn/cell.hpp"
struct Wide {
  static constexpr int kState = 1, kInputs = 8, kParams = 8;
  template <class T>
  PARARNN_FN static pararnn::Vec<T, 1> step(const pararnn::Vec<T, 1>& h,
                                            const pararnn::Vec<T, 8>& u,
                                            const pararnn::Vec<T, 8>& w) {
    T sum = w[7] * h[0] + u[7];
    for (int i = 0; i < 7; ++i) sum += w[i] * u[i];
    return {tanh(sum)};
  }
};
)"));
  const Arguments a = random_arguments(cell, 1, 30, 2, torch::kFloat64, 45);
  const Direction d = random_direction(a);
  const auto run = [&](const Tensor& u, const Tensor& w, const Tensor& h0) {
    return outputs(scan(u, w, h0, cell.key()));
  };
  const auto expected = differences(a, d, run);
  const auto [values, tangents] = with_tangents(
      [&](const auto& dual) { return run(dual(a.u, d.u), dual(a.w, d.w), dual(a.h0, d.h0)); });
  for (size_t i = 0; i < expected.size(); ++i) {
    expect_close(tangents[i], expected[i], 1e-7, "tangent");
  }
  // A tangent of 34 numbers has none itself, and says so in a sentence.
  const CellDefinition& tangent = find_tangent(cell);
  const Arguments b = random_arguments(tangent, 1, 3, 2, torch::kFloat64, 46);
  std::string said;
  with_tangents([&](const auto& dual) {
    try {
      scan(dual(b.u, b.u), b.w, b.h0, tangent.key());
    } catch (const Error& error) {
      said = error.what();
    }
    return std::vector<Tensor>();
  });
  EXPECT_NE(said.find("at most 32 together"), said.npos) << said;
}

}  // namespace
}  // namespace pararnn
