// What the tests of the operators share: random arguments, the plain loop, and comparisons.
#pragma once

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>
#include <string>

#include "base/error.hpp"
#include "cells/cell_reference.hpp"
#include "cells/cell_registry.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn {

using torch::Tensor;
constexpr const char* kPlans[] = {"auto", "sequential", "speculative", "newton"};

struct Arguments {
  Tensor u, w, h0;
};

/// Random arguments of (B,T,D); the state is positive, as a normaliser is.
inline Arguments random_arguments(const CellDefinition& cell, int64_t B, int64_t T, int64_t D,
                                  torch::ScalarType type, uint64_t seed, double weights = 1) {
  torch::manual_seed(seed);
  const auto of = torch::dtype(type);
  const auto arithmetic = torch::dtype(type == torch::kFloat64 ? type : torch::kFloat32);
  return {torch::randn({B, T, cell.inputs, D}, of),
          weights * (2 * torch::rand({cell.params, D}, arithmetic) - 1),
          0.1 + torch::rand({B, cell.state, D}, arithmetic)};
}

struct Results {
  Tensor y, hT, du, dw, dh0;
};

/// The plain loop in double, from its two passes.
inline Results reference(CellReference::Forward<double> forward,
                         CellReference::Backward<double> backward, const Arguments& a,
                         const Tensor& dy, const Tensor& dhT) {
  const auto wide = [](const Tensor& t) { return t.detach().to(torch::kFloat64).contiguous(); };
  const Tensor u = wide(a.u), w = wide(a.w), h0 = wide(a.h0), gy = wide(dy), gh = wide(dhT);
  const Shape shape{u.size(0), u.size(1), u.size(3)};
  Results r{torch::empty({shape.batch, shape.steps, shape.channels}, torch::kFloat64),
            torch::empty_like(h0), torch::empty_like(u), torch::empty_like(w),
            torch::empty_like(h0)};
  const auto data = [](const Tensor& t) { return t.data_ptr<double>(); };
  forward(shape, data(u), data(w), data(h0), data(r.y), data(r.hT), nullptr, {});
  backward(shape, data(u), data(w), data(h0), data(gy), data(gh), data(r.du), data(r.dw),
           data(r.dh0), {});
  return r;
}

inline Results reference(const CellDefinition& cell, const Arguments& a, const Tensor& dy,
                         const Tensor& dhT) {
  const CellReference& loops = cell_reference(cell);
  return reference(loops.double_forward, loops.double_backward, a, dy, dhT);
}

inline Results run(const CellDefinition& cell, const Arguments& a, const Tensor& dy,
                   const Tensor& dhT, const ScanOptions& options = {}) {
  const auto leaf = [](const Tensor& t) { return t.detach().requires_grad_(); };
  const Tensor u = leaf(a.u), w = leaf(a.w), h0 = leaf(a.h0);
  const auto [y, hT] = scan(u, w, h0, cell.key(), options);
  const auto g = torch::autograd::grad({y, hT}, {u, w, h0}, {dy, dhT});
  return {y.detach(), hT.detach(), g[0], g[1], g[2]};
}

/// Within `tolerance` of the largest number of the expected.
inline void expect_close(const Tensor& got, const Tensor& expected, double tolerance,
                         const char* what) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  if (got.numel() == 0) return;
  const Tensor wide = expected.to(torch::kFloat64);
  const double error = (got.to(torch::kFloat64) - wide).abs().max().item<double>();
  const double size = wide.abs().max().item<double>();
  EXPECT_LE(error, tolerance * (size + 1e-300)) << what;
}

inline void expect_close(const Results& got, const Results& expected, double tolerance) {
  expect_close(got.y, expected.y, tolerance, "y");
  expect_close(got.hT, expected.hT, tolerance, "hT");
  expect_close(got.du, expected.du, tolerance, "du");
  expect_close(got.dw, expected.dw, tolerance, "dw");
  expect_close(got.dh0, expected.dh0, tolerance, "dh0");
}

/// run(cell, arguments, dy, dhT, options) equals the plain loop for every cell, plan and
/// arithmetic, to a tolerance for each arithmetic.
template <class Run>
void expect_the_loop(const Run& run, double of_float32, double of_float64) {
  const int64_t shapes[][3] = {{2, 1, 3}, {3, 17, 1}, {1, 200, 8}, {2, 333, 21}, {1, 64, 70}};
  uint64_t seed = 0;
  for (const CellDefinition& cell : built_in_cells()) {
    for (const auto& [B, T, D] : shapes) {
      for (const auto type : {torch::kFloat32, torch::kFloat64}) {
        const Arguments a = random_arguments(cell, B, T, D, type, ++seed);
        const Tensor dy = torch::randn({B, T, D}, type), dhT = torch::randn_like(a.h0);
        const Results expected = reference(cell, a, dy, dhT);
        for (const char* plan : kPlans) {
          SCOPED_TRACE(fmt::format("{} B{} T{} D{} {}", cell.name, B, T, D, plan));
          expect_close(run(cell, a, dy, dhT, ScanOptions{plan, 48}), expected,
                       type == torch::kFloat64 ? of_float64 : of_float32);
        }
      }
    }
  }
}

inline void expect_equal(const Results& a, const Results& b) {
  EXPECT_TRUE(torch::equal(a.y, b.y));
  EXPECT_TRUE(torch::equal(a.hT, b.hT));
  EXPECT_TRUE(torch::equal(a.du, b.du));
  EXPECT_TRUE(torch::equal(a.dw, b.dw));
  EXPECT_TRUE(torch::equal(a.dh0, b.dh0));
}

inline std::string sentence_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace pararnn
