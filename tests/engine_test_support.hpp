// What the tests of the engine share: the cells behind function pointers, random problems, callers'
// layouts of tensors, and the engine run on them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "pararnn/cells.hpp"
#include "pararnn/cpu/scan_backward.hpp"
#include "pararnn/cpu/scan_forward.hpp"
#include "pararnn/cpu/storage.hpp"
#include "pararnn/reference_bounds.hpp"

namespace pararnn::test {

/// A cell with arithmetic in T.
template <class T>
struct CellUnderTest {
  std::string name;
  cpu::Kernels<T> kernels;
  decltype(&reference_forward<Gru, T>) loop;
  decltype(&reference_backward<Gru, T>) loop_backward;
  decltype(&reference_bounds<Gru, T>) bounds;
};

/// The built-in cells, with the library's kernels; in double also those of examples/cells, which
/// the operators' tests run in float. But for the chaotic one: no two roundings of it agree, so it
/// has a test of its own (engine_catalogue_test.cpp). Made in engine_cells.cpp.
template <class T>
const std::vector<CellUnderTest<T>>& cells_under_test();

/// The one of that name.
template <class T>
const CellUnderTest<T>& cell_under_test(const std::string& name) {
  for (const CellUnderTest<T>& cell : cells_under_test<T>()) {
    if (cell.name == name) return cell;
  }
  throw std::logic_error("tests/catalogue.hpp lacks " + name);
}

/// Random arrays for one cell; shapes as in reference.hpp.
template <class T>
struct Problem {
  Shape shape;
  int S, U, P;
  std::vector<T> u, w, h0, dy, dhT;
  std::vector<int> offsets;          // of sequences in the only row, or none
  std::vector<unsigned char> reset;  // (B,T), or none

  Problem(const cpu::Kernels<T>& cell, const Shape& sizes, double weight_scale, double gate_bias,
          unsigned seed, std::vector<int> the_offsets = {}, std::vector<unsigned char> flags = {})
      : shape(sizes),
        S(cell.state),
        U(cell.inputs),
        P(cell.params),
        offsets(std::move(the_offsets)),
        reset(std::move(flags)) {
    const auto [batch, steps, channels] = shape;
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(-weight_scale, weight_scale);
    // Numbers that bfloat16 and float16 hold exactly, so that storage alone makes no difference.
    const auto fill = [&](std::vector<T>& x, std::int64_t size, auto&& draw) {
      x.resize(size);
      for (std::int64_t i = 0; i < size; ++i) x[i] = T(std::round(draw(i) * 16) / 16);
    };
    fill(u, batch * steps * U * channels, [&](std::int64_t i) {
      return normal(generator) + ((i / channels) % U == 0 ? gate_bias : 0);
    });
    fill(dy, batch * steps * channels, [&](std::int64_t) { return normal(generator); });
    fill(dhT, rows_of_states() * S * channels, [&](std::int64_t) { return normal(generator); });
    for (std::int64_t i = 0; i < P * channels; ++i) w.push_back(T(uniform(generator)));
    // Positive, as a normaliser is.
    for (std::int64_t i = 0; i < rows_of_states() * S * channels; ++i) {
      h0.push_back(T(0.1 + std::abs(normal(generator))));
    }
  }

  Sequences sequences() const {
    Sequences s;
    if (!offsets.empty()) s = {offsets.data(), std::int64_t(offsets.size()) - 1, nullptr};
    if (!reset.empty()) s.reset = reset.data();
    return s;
  }
  /// Of h0, hT and their gradients.
  std::int64_t rows_of_states() const {
    return offsets.empty() ? shape.batch : std::int64_t(offsets.size()) - 1;
  }
};

/// How the caller's tensors lie in memory.
enum class Layout { kBatchFirst, kTimeFirst, kHeads, kPadded };
inline constexpr Layout kLayouts[] = {Layout::kBatchFirst, Layout::kTimeFirst, Layout::kHeads,
                                      Layout::kPadded};

/// A tensor (B,T,N,D) in some storage and layout, with room around it that must stay untouched.
class Stored {
 public:
  Stored(const Shape& shape, int components, Layout layout, cpu::Storage storage)
      : shape_(shape), components_(components) {
    const auto [batch, steps, channels] = shape;
    const std::int64_t N = components;
    std::int64_t extra = 0;
    view.storage = storage;
    view.head_width = view.head_stride = channels;
    view.component_stride = channels;
    switch (layout) {
      case Layout::kBatchFirst:
        view.step_stride = N * channels, view.batch_stride = steps * N * channels;
        break;
      case Layout::kTimeFirst:
        view.batch_stride = N * channels, view.step_stride = batch * N * channels;
        break;
      case Layout::kHeads:
        view.head_width = channels % 3 == 0 ? channels / 3 : 1;
        view.component_stride = view.head_width;
        view.head_stride = N * view.head_width;
        view.step_stride = N * channels, view.batch_stride = steps * N * channels;
        break;
      case Layout::kPadded:
        extra = 3;
        view.component_stride = channels + extra;
        view.step_stride = N * view.component_stride + 2;
        view.batch_stride = steps * view.step_stride + 5;
        break;
    }
    const std::int64_t size = batch * steps * (N * (channels + extra) + 2) + batch * 5;
    bytes_.assign(size * width() + 3 * kAlignment, kUntouched);
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
    before_ = 2 * kAlignment - address % kAlignment;
    view.data = bytes_.data() + before_;
  }
  Stored(const Stored&) = delete;

  template <class T>
  void fill(const std::vector<T>& values) {
    each([&](std::int64_t at, std::int64_t i) {
      cpu::store_run(&values[i], 1, view.data, view.storage, at);
    });
  }
  template <class T>
  std::vector<T> values() const {
    std::vector<T> result(shape_.batch * shape_.steps * components_ * shape_.channels);
    each([&](std::int64_t at, std::int64_t i) {
      cpu::load_run(view.data, view.storage, at, 1, &result[i]);
    });
    return result;
  }
  /// Whether everything outside of the tensor is as it was made.
  bool surroundings_untouched() const {
    std::vector<bool> inside(bytes_.size());
    each([&](std::int64_t at, std::int64_t) {
      for (int i = 0; i < width(); ++i) inside[before_ + at * width() + i] = true;
    });
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      if (!inside[i] && bytes_[i] != kUntouched) return false;
    }
    return true;
  }

  cpu::TensorView view;

 private:
  static constexpr std::size_t kAlignment = 64;
  static constexpr unsigned char kUntouched = 0xff;  // NaN in every storage

  int width() const {
    return view.storage == cpu::Storage::kFloat64   ? 8
           : view.storage == cpu::Storage::kFloat32 ? 4
                                                    : 2;
  }
  template <class F>
  void each(F&& f) const {
    std::int64_t i = 0;
    for (std::int64_t b = 0; b < shape_.batch; ++b) {
      for (std::int64_t t = 0; t < shape_.steps; ++t) {
        for (int n = 0; n < components_; ++n) {
          for (std::int64_t d = 0; d < shape_.channels; ++d) {
            f(view.offset(b, t, d) + n * view.component_stride, i++);
          }
        }
      }
    }
  }

  Shape shape_;
  int components_;
  std::vector<unsigned char> bytes_;
  std::size_t before_ = 0;  // the tensor, in bytes
};

template <class T>
inline constexpr cpu::Storage kStorageOf = sizeof(T) == 8 ? cpu::Storage::kFloat64
                                                          : cpu::Storage::kFloat32;

/// How to run the engine.
struct Running {
  std::string way = "auto";
  std::int64_t chunk = 0, burn_in = -1;
  Layout layout = Layout::kBatchFirst;
  std::optional<cpu::Storage> storage = std::nullopt;  // none: that of the arithmetic
  cpu::Executor executor = cpu::serial_executor();
  bool with_h0 = true;
  bool streamed = false;  // the outputs
};

template <class T>
struct Result {
  std::vector<T> y, hT, du, dw, dh0, checkpoints;
  Statistics forward, backward;
  bool in_bounds_of_memory = true;
};

template <class T>
Result<T> run(const cpu::Kernels<T>& cell, const Problem<T>& p, const Running& how) {
  const auto [batch, steps, channels] = p.shape;
  const cpu::Storage storage = how.storage.value_or(kStorageOf<T>);
  Stored u(p.shape, p.U, how.layout, storage), y(p.shape, 1, how.layout, storage);
  Stored dy(p.shape, 1, how.layout, storage), du(p.shape, p.U, how.layout, storage);
  y.view.streamed = du.view.streamed = how.streamed;
  u.fill(p.u);
  dy.fill(p.dy);
  Result<T> r;
  r.hT.resize(p.h0.size());
  r.dw.resize(p.P * channels);
  r.dh0.resize(p.h0.size());
  const Plan plan = make_plan(
      {batch, steps, channels, cell.lanes, how.executor.threads, how.way, how.chunk, how.burn_in});
  cpu::ForwardProblem<T> forward{};
  forward.size = {batch, steps, channels, 0, 0, 0};
  r.checkpoints.resize(batch * forward.size.checkpoint_count() * p.S * channels);
  forward.u = u.view, forward.y = y.view, forward.w = p.w.data();
  forward.sequences = p.sequences();
  forward.h0 = how.with_h0 ? p.h0.data() : nullptr, forward.hT = r.hT.data();
  forward.checkpoints = r.checkpoints.data();
  forward.tolerance = kDefaultTolerance<T>;
  r.forward = cpu::scan_forward(cell, how.executor, forward, plan);
  cpu::BackwardProblem<T> backward{};
  backward.size = forward.size;
  backward.u = u.view, backward.dy = dy.view, backward.du = du.view, backward.w = p.w.data();
  backward.sequences = p.sequences(), backward.h0 = forward.h0;
  backward.checkpoints = r.checkpoints.data();
  backward.dhT = p.dhT.data(), backward.dh0 = r.dh0.data(), backward.dw = r.dw.data();
  backward.tolerance = kDefaultTolerance<T>;
  r.backward = cpu::scan_backward(cell, how.executor, backward, plan);
  r.y = y.values<T>();
  r.du = du.values<T>();
  r.in_bounds_of_memory = y.surroundings_untouched() && du.surroundings_untouched();
  return r;
}

/// The reference with its bounds; along the trajectory of `followed` if that is given.
template <class T>
BoundedResult bounds(const CellUnderTest<T>& cell, const Problem<T>& p, const Result<T>& of,
                     bool with_h0, bool follow) {
  const auto wide = [](const std::vector<T>& x) { return std::vector<double>(x.begin(), x.end()); };
  const std::vector<double> y = wide(of.y), checkpoints = wide(of.checkpoints), h0 = wide(p.h0);
  const Trajectory trajectory{y.data(), checkpoints.data()};
  return cell.bounds(p.shape, wide(p.u).data(), wide(p.w).data(), with_h0 ? h0.data() : nullptr,
                     wide(p.dy).data(), wide(p.dhT).data(),
                     {of.forward.plan.chunk, of.backward.plan.chunk, kDefaultTolerance<T>},
                     follow ? &trajectory : nullptr, p.sequences());
}

/// The largest error in units of its bound; infinity where a number is missing. 1 is the most
/// that is right.
template <class T>
double worst(const std::vector<T>& got, const BoundedArray& expected) {
  double result = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double(got[i]) - expected.value[i]);
    const bool overflows = std::isnan(expected.bound[i]);
    const double ratio = error == 0 || overflows ? 0 : error / expected.bound[i];
    if (!(ratio <= result)) result = ratio == ratio ? ratio : std::numeric_limits<double>::max();
  }
  return result;
}

/// Expects a result within the bounds of the plain loop, and of one step from the state before.
template <class T>
void expect_right(const CellUnderTest<T>& cell, const Problem<T>& p, const Result<T>& r,
                  bool with_h0) {
  EXPECT_TRUE(r.in_bounds_of_memory);
  for (const bool follow : {false, true}) {
    SCOPED_TRACE(follow ? "along its own trajectory" : "against the loop");
    BoundedResult expected = bounds(cell, p, r, with_h0, follow);
    EXPECT_LE(worst(r.y, expected.y), 1);
    EXPECT_LE(worst(r.hT, expected.hT), 1);
    EXPECT_LE(worst(r.du, expected.du), 1);
    EXPECT_LE(worst(r.dw, expected.dw), 1);
    EXPECT_LE(worst(r.dh0, expected.dh0), 1);
    // Where a chunk begins, the state may differ by the tolerance from where the one before ended.
    const auto [batch, steps, channels] = p.shape;
    const std::int64_t count = (steps + kChunkUnit - 1) / kChunkUnit;
    for (std::size_t i = 0; i < r.checkpoints.size(); ++i) {
      const std::int64_t t = std::int64_t(i) / (channels * p.S) % count * kChunkUnit;
      if (t > 0 && t % r.forward.plan.chunk == 0) {
        expected.states.bound[i] += kDefaultTolerance<T> * (1 + std::abs(expected.states.value[i]));
      }
    }
    EXPECT_LE(worst(r.checkpoints, expected.states), 1);
  }
}

/// Expects finite numbers about equal, and others of the same kind.
template <class T>
void expect_same_kind(const std::vector<T>& got, const std::vector<T>& expected) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isfinite(expected[i])) {
      ASSERT_NEAR(got[i], expected[i], sizeof(T) == 8 ? 1e-11 : 1e-4) << i;
    } else if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << i;
    } else {
      ASSERT_EQ(got[i], expected[i]) << i;
    }
  }
}

/// To the nearest number of a storage.
template <class T>
std::vector<T> rounded(std::vector<T> x, cpu::Storage storage) {
  for (T& v : x) {
    if (storage == cpu::Storage::kFloat16) v = cpu::from_float16(cpu::to_float16(float(v)));
    if (storage == cpu::Storage::kBFloat16) v = cpu::from_bfloat16(cpu::to_bfloat16(float(v)));
  }
  return x;
}

}  // namespace pararnn::test
