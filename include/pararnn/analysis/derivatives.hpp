// Are the derivatives of a step right, and where are there none? The engine's derivatives (dual
// numbers) are compared with differences in double at random points along trajectories, and lines
// through such points are searched for kinks and jumps.
//
// A kink: the derivatives from the left and from the right differ (abs, max, select). Newton's
// method takes it; how fast depends on how often trajectories cross it. A jump: the value itself
// differs (floor, a threshold), and no derivative tells of it. Both are found by halving an
// interval at whose ends value and derivative do not fit together, until it has no length to speak
// of.
#pragma once

#include <optional>

#include "pararnn/analysis/channel.hpp"

namespace pararnn {

/// A place where the next state has no derivative, or not the one that the engine computes.
struct Irregularity {
  enum class Kind { kKink, kJump, kWrongDerivative };
  Kind kind;
  int component;  // of the next state
  int argument;   // that was varied: state first, then inputs, then parameters
  double at;      // its value there
  /// Kink: the derivatives on the left and the right. Jump: the values. Wrong derivative: that of
  /// the engine, and by differences.
  double left, right;
};

struct DerivativeReport {
  std::int64_t comparisons = 0;
  /// Of the derivatives where there is one, relative to 1 + |derivative|.
  double largest_error = 0;
  int component = 0, argument = 0;  // where it is largest
  /// Points at which a value or derivative is not finite, of all that were tried.
  std::int64_t not_finite = 0, points = 0;
  std::vector<Irregularity> irregularities;  // the first of each kind, component and argument
  std::vector<bool> has_effect;              // of each argument: whether it changes any component

  bool has(Irregularity::Kind kind) const {
    return std::any_of(irregularities.begin(), irregularities.end(),
                       [&](const Irregularity& found) { return found.kind == kind; });
  }
};

namespace detail {

/// One step with one of its arguments free.
class FreeArgument {
 public:
  struct Sample {
    double at, value, slope;
  };

  FreeArgument(const CellAnalysis& cell, std::vector<double> point, int component, int argument)
      : cell_(&cell),
        point_(std::move(point)),
        next_(static_cast<std::size_t>(cell.state)),
        jacobian_(next_.size() * point_.size()),
        component_(static_cast<std::size_t>(component)),
        argument_(static_cast<std::size_t>(argument)) {}

  double value(double at) {
    point_[argument_] = at;
    cell_->twice.step(point_.data(), inputs(), params(), next_.data());
    return next_[component_];
  }
  Sample sample(double at) {
    point_[argument_] = at;
    cell_->differentiate(point_.data(), inputs(), params(), next_.data(), jacobian_.data());
    return {at, next_[component_], jacobian_[component_ * point_.size() + argument_]};
  }
  /// The derivative by central differences, of fourth order (Richardson's extrapolation).
  double difference(double at, double h) {
    const double wide = (value(at + h) - value(at - h)) / (2 * h);
    const double narrow = (value(at + h / 2) - value(at - h / 2)) / h;
    return (4 * narrow - wide) / 3;
  }
  /// The irregularity between two samples, if there is one.
  std::optional<Irregularity> search(Sample left, Sample right) {
    constexpr double kShort = 1e-10, kSlopesDiffer = 1e-5, kOfSlopes = 1e-3;
    const double first = unfit(left, right);
    if (!(first > kSlopesDiffer)) return std::nullopt;
    for (int halvings = 1; right.at - left.at > kShort * (1 + std::abs(left.at)); ++halvings) {
      const Sample middle = sample((left.at + right.at) / 2);
      if (unfit(left, middle) >= unfit(middle, right)) {
        right = middle;
      } else {
        left = middle;
      }
      // Where there is a second derivative, each halving halves what does not fit.
      const double now = unfit(left, right);
      if (!(now > kSlopesDiffer) || (halvings == 8 && now < first / 16)) return std::nullopt;
    }
    const double length = right.at - left.at;
    const double explained =
        length * (std::abs(left.slope) + std::abs(right.slope)) + 1e-12 * std::abs(left.value);
    const Irregularity found{Irregularity::Kind::kKink,
                             int(component_),
                             int(argument_),
                             left.at,
                             left.slope,
                             right.slope};
    if (std::abs(right.value - left.value) > 1e-8 + 2 * explained) {
      return Irregularity{Irregularity::Kind::kJump,
                          found.component,
                          found.argument,
                          left.at,
                          left.value,
                          right.value};
    }
    const double apart = std::abs(right.slope - left.slope);
    if (!(apart > kSlopesDiffer + kOfSlopes * std::abs(left.slope))) return std::nullopt;
    return found;
  }

 private:
  const double* inputs() const { return point_.data() + cell_->state; }
  const double* params() const { return inputs() + cell_->inputs; }
  /// How far the ends of an interval are from being joined by one smooth curve, as a difference of
  /// slopes.
  static double unfit(const Sample& left, const Sample& right) {
    const double length = right.at - left.at;
    const double risen = (right.value - left.value) / length;
    return std::abs(right.slope - left.slope) + std::abs(risen - (left.slope + right.slope) / 2);
  }

  const CellAnalysis* cell_;
  std::vector<double> point_, next_, jacobian_;
  std::size_t component_, argument_;
};

/// Random points of steps: arguments in order, the states those of trajectories.
inline std::vector<std::vector<double>> points_of_steps(const CellAnalysis& cell,
                                                        const InputRoles& roles, int channels,
                                                        int steps, std::uint64_t seed) {
  std::vector<std::vector<double>> points;
  for (int channel = 0; channel < channels; ++channel) {
    RandomChannel random(cell, roles, {4, 0, 3}, seed * 1000 + std::uint64_t(channel));
    Walker walker(cell);
    for (int t = 0; t < steps; ++t) {
      std::vector<double> point = walker.state();
      const double* u = random.next_inputs();
      point.insert(point.end(), u, u + cell.inputs);
      point.insert(point.end(), random.weights(), random.weights() + cell.params);
      points.push_back(std::move(point));
      walker.step(u, random.weights());
      if (!walker.is_bounded()) break;
    }
  }
  return points;
}

}  // namespace detail

/// At points of trajectories with weights up to 4 and inputs of standard deviation 3.
inline DerivativeReport check_derivatives(const CellAnalysis& cell, const InputRoles& roles,
                                          std::uint64_t seed = 4) {
  using Kind = Irregularity::Kind;
  constexpr double kRounding = 0x1p-49;    // of a value, in a difference of some
  constexpr double kWrong = 1e-5;          // a larger error is not one of the differences
  constexpr double kReachable = 1e6;       // states beyond it tell nothing in differences
  constexpr int kLines = 6, kPieces = 24;  // every kLines-th point; intervals on a line
  DerivativeReport report;
  report.has_effect.resize(static_cast<std::size_t>(cell.arguments()));
  const auto points = detail::points_of_steps(cell, roles, 16, 40, seed);
  const auto reachable = [&](const std::vector<double>& point) {
    return std::all_of(point.begin(), point.end(),
                       [&](double x) { return std::abs(x) < kReachable; });
  };
  const auto record = [&](const Irregularity& found) {
    const bool known = std::any_of(
        report.irregularities.begin(), report.irregularities.end(), [&](const Irregularity& i) {
          return i.kind == found.kind && i.component == found.component &&
                 i.argument == found.argument;
        });
    if (!known) report.irregularities.push_back(found);
  };
  // A line is as long as an argument ranges over all the points.
  std::vector<double> lowest(points.front()), highest(points.front());
  for (const auto& point : points) {
    if (!reachable(point)) continue;
    for (std::size_t i = 0; i < point.size(); ++i) {
      lowest[i] = std::min(lowest[i], point[i]);
      highest[i] = std::max(highest[i], point[i]);
    }
  }

  const auto compare = [&](detail::FreeArgument& free, double at, int component, int argument) {
    const auto here = free.sample(at);
    if (!std::isfinite(here.value) || !std::isfinite(here.slope)) {
      ++report.not_finite;
      return;
    }
    ++report.comparisons;
    double error = HUGE_VAL, nearest = 0, reach = 0;
    for (const double h : {1e-3, 1e-4, 1e-2, 1e-5}) {
      const double by_differences = free.difference(at, h * (1 + std::abs(at)));
      const double rounding = kRounding * std::abs(here.value) / (h * (1 + std::abs(at)));
      const double apart = std::abs(by_differences - here.slope) - rounding;
      const double off =
          std::max(apart, 0.0) / (1 + std::min(std::abs(by_differences), std::abs(here.slope)));
      if (off < error) error = off, nearest = by_differences, reach = h * (1 + std::abs(at));
      if (error < 1e-9) break;
    }
    if (!(error <= kWrong)) {
      // Either an irregularity lies within reach, or on the point itself, or the derivative is
      // wrong.
      const auto left = free.sample(at - reach), right = free.sample(at + reach);
      if (const auto found = free.search(left, right)) return record(*found);
      record({Kind::kWrongDerivative, component, argument, at, here.slope, nearest});
    }
    if (!(error <= report.largest_error)) {
      report.largest_error = error;
      report.component = component;
      report.argument = argument;
    }
  };

  for (std::size_t k = 0; k < points.size(); ++k) {
    if (!reachable(points[k])) continue;
    ++report.points;
    for (int component = 0; component < cell.state; ++component) {
      for (int argument = 0; argument < cell.arguments(); ++argument) {
        const auto i = static_cast<std::size_t>(argument);
        detail::FreeArgument free(cell, points[k], component, argument);
        compare(free, points[k][i], component, argument);
        if (k % kLines != 0) continue;
        const bool is_fixed = highest[i] == lowest[i];  // a mask, a time gap: from 0 to twice it
        const double from = is_fixed ? 0 : lowest[i];
        const double length = (is_fixed ? 2 * highest[i] : highest[i] - lowest[i]) / kPieces;
        if (!(length > 0)) continue;
        auto left = free.sample(from);
        for (int piece = 1; piece <= kPieces; ++piece) {
          const auto right = free.sample(from + piece * length);
          if (const auto found = free.search(left, right)) record(*found);
          if (left.value != right.value) report.has_effect[i] = true;
          left = right;
        }
      }
    }
  }
  return report;
}

}  // namespace pararnn
