// The analyses of a cell against what is known of it: exponents and rates in closed form, kinks and
// jumps at places that the cell's text names, operations that can be counted by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numbers>
#include <random>

#include "pararnn/analysis/derivatives.hpp"
#include "pararnn/analysis/forgetting.hpp"
#include "pararnn/analysis/lyapunov.hpp"
#include "pararnn/analysis/newton.hpp"
#include "pararnn/cells.hpp"

namespace pararnn {
namespace {

using Kind = Irregularity::Kind;

/// h ← a h + u: forgets at the rate log a, whatever it reads.
struct Linear {
  static constexpr int kState = 1, kInputs = 1, kParams = 0;
  static constexpr double kRate = 0.999;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 0>&) {
    return {T(kRate) * h[0] + u[0]};
  }
};

/// h ← 1.5 h + u: grows beyond all bounds.
struct Growing {
  static constexpr int kState = 1, kInputs = 1, kParams = 0;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 0>&) {
    return {T(1.5) * h[0] + u[0]};
  }
};

/// Two states, of which the first is turned and shrunk with the second: both eigenvalues have the
/// absolute value kRate.
struct Spiral {
  static constexpr int kState = 2, kInputs = 1, kParams = 0;
  static constexpr double kRate = 0.9;

  template <class T>
  static constexpr Vec<T, 2> step(const Vec<T, 2>& h, const Vec<T, 1>& u, const Vec<T, 0>&) {
    const double cosine = 0.6 * kRate, sine = 0.8 * kRate;
    return {T(cosine) * h[0] - T(sine) * h[1] + u[0], T(sine) * h[0] + T(cosine) * h[1]};
  }
};

/// The logistic map x ← 4 x (1 − x) at x = h + 0.3, which leaves the fixed point 0 aside. Its
/// exponent is log 2.
struct Logistic {
  static constexpr int kState = 1, kInputs = 1, kParams = 0;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>&, const Vec<T, 0>&) {
    const T x = h[0] + T(0.3);
    return {T(4) * x * (T(1) - x) - T(0.3)};
  }
};

/// Component 1 has a kink in its second input alone, at 0.25.
struct Rectified {
  static constexpr int kState = 2, kInputs = 3, kParams = 1;

  template <class T>
  static constexpr Vec<T, 2> step(const Vec<T, 2>& h, const Vec<T, 3>& u, const Vec<T, 1>& w) {
    return {tanh(u[0] + w[0] * h[0]), T(0.5) * h[1] + max(u[1] - T(0.25), T(0)) + u[2]};
  }
};

/// The value jumps by 2 where the first input crosses 0.5.
struct Threshold {
  static constexpr int kState = 1, kInputs = 2, kParams = 0;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 0>&) {
    return {T(0.5) * h[0] + u[1] + select(less(u[0], T(0.5)), T(-1), T(1))};
  }
};

/// A function whose derivative somebody has written down wrongly: sin x for dual numbers, 1.1 cos
/// x.
template <class T>
constexpr Number<T> misjudged(const Number<T>& x) {
  return sin(x);
}
[[maybe_unused]] constexpr Pattern misjudged(Pattern x) { return x; }
Traced misjudged(const Traced& x) { return x; }
template <class T, int N>
constexpr Dual<T, N> misjudged(const Dual<T, N>& x) {
  return chain(x, misjudged(x.value), T(1.1) * cos(x.value));
}
struct Misjudged {
  static constexpr int kState = 1, kInputs = 2, kParams = 0;

  template <class T>
  static constexpr Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 0>&) {
    return {tanh(h[0] + u[0]) + misjudged(u[1])};
  }
};

template <class C>
LyapunovExponents exponents(const Regime& regime = {}) {
  return measure_lyapunov(make_analysis<C>(), {}, regime);
}

TEST(Lyapunov, OfALinearCellIsTheLogarithmOfItsRate) {
  EXPECT_NEAR(exponents<Linear>().mean, std::log(Linear::kRate), 1e-6);
  EXPECT_NEAR(exponents<Linear>().largest, std::log(Linear::kRate), 1e-6);
  EXPECT_NEAR(exponents<Spiral>().mean, std::log(Spiral::kRate), 1e-6);
}

TEST(Lyapunov, OfTheLogisticMapIsTheLogarithmOfTwo) {
  const LyapunovExponents found = exponents<Logistic>();
  EXPECT_NEAR(found.mean, std::numbers::ln2, 0.02 * std::numbers::ln2);
  EXPECT_EQ(found.chaotic, 1);
}

TEST(Lyapunov, OfAStateThatGrowsBeyondAllBoundsIsItsRateUntilThen) {
  const LyapunovExponents found = exponents<Growing>();
  EXPECT_NEAR(found.mean, std::log(1.5), 1e-6);
  EXPECT_EQ(found.unbounded, 1);
  EXPECT_EQ(exponents<Logistic>().unbounded, 0);
  // Differences of large numbers are off by rounding, which is no error of the derivative.
  EXPECT_TRUE(check_derivatives(make_analysis<Growing>(), {}).irregularities.empty());
}

TEST(Lyapunov, GatedCellsAtModerateWeightsForget) {
  for (const double scale : {0.5, 1.0}) {
    EXPECT_LT(exponents<Elman>({scale}).largest, 0) << scale;
    EXPECT_LT(exponents<Gru>({scale}).largest, 0) << scale;
    EXPECT_LT(exponents<Lstm>({scale}).largest, 0) << scale;
    EXPECT_LT(exponents<Slstm>({scale}).largest, 0) << scale;
  }
}

TEST(Forgetting, ElmanWithSmallWeightsForgetsWithinTheDefaultBurnIn) {
  const Forgetting found = measure_forgetting(make_analysis<Elman>(), {}, {0.5});
  ASSERT_EQ(found.burn_in.size(), found.worst.size());
  EXPECT_EQ(found.burn_in.front(), 1);
  EXPECT_EQ(found.burn_in.back(), 4096);
  EXPECT_GT(found.steps_to_millionth, 0);
  EXPECT_LE(found.steps_to_millionth, 64);
  EXPECT_LE(found.steps_to_thousandth, found.steps_to_millionth);
}

TEST(Forgetting, OfALinearCellTakesTheStepsOfItsRate) {
  const Forgetting found = measure_forgetting(make_analysis<Linear>(), {}, {}, 32, 32768);
  // From a mismatch of a thousandth to one of a millionth, less what the state itself changes.
  const double steps = std::log(1e-3) / std::log(Linear::kRate);
  EXPECT_NEAR(double(found.steps_to_millionth - found.steps_to_thousandth), steps, 0.5 * steps);
  for (std::size_t i = 0; i < found.worst.size(); ++i) EXPECT_LE(found.median[i], found.worst[i]);
  EXPECT_EQ(measure_forgetting(make_analysis<Linear>(), {}, {}).steps_to_millionth, -1);
}

TEST(Forgetting, AGateThatShutsRemembersLonger) {
  const CellAnalysis gru = make_analysis<Gru>();
  const InputRoles roles{0, -1};  // a smaller update gate remembers longer
  const auto steps = [&](double bias) {
    return measure_forgetting(gru, roles, {1, bias}).steps_to_thousandth;
  };
  EXPECT_LT(steps(-4), steps(0));
  EXPECT_LT(2 * steps(0), steps(4));
}

TEST(Newton, IsExactAtOnceForALinearCell) {
  for (const std::int64_t chunk : {1, 16, 256}) {
    const NewtonRequest request{4096, chunk, 0, 1e-6, 32};
    EXPECT_EQ(measure_newton<double>(make_analysis<Linear>(), {}, {}, request).worst, 1) << chunk;
  }
}

TEST(Newton, NeedsNothingWhereTheBurnInForgets) {
  const NewtonCorrections found = measure_newton<float>(make_analysis<Gru>(), {}, {1}, {});
  EXPECT_EQ(found.worst, 0);
}

TEST(Newton, IsNoHelpInChaosAndNeverNeedsMoreThanOneCorrectionAChunk) {
  const CellAnalysis logistic = make_analysis<Logistic>();
  EXPECT_EQ(measure_newton<double>(logistic, {}, {}, {4096, 64, 64, 1e-6, 32}).worst, -1);
  const NewtonRequest few_chunks{640, 64, 0, 1e-6, 32};
  const int worst = measure_newton<double>(logistic, {}, {}, few_chunks).worst;
  EXPECT_GE(worst, 8);
  EXPECT_LE(worst, 9);
}

TEST(Derivatives, OfTheBuiltInCellsAreThoseByDifferences){
#define PARARNN_CHECK(name, Type)                                                    \
  {                                                                                  \
    const DerivativeReport report = check_derivatives(make_analysis<Type>(), {});    \
    EXPECT_LT(report.largest_error, 1e-7) << #name;                                  \
    EXPECT_GT(report.comparisons, 1000) << #name;                                    \
    EXPECT_EQ(report.not_finite, 0) << #name;                                        \
    EXPECT_FALSE(report.has(Kind::kJump)) << #name;                                  \
    EXPECT_FALSE(report.has(Kind::kWrongDerivative)) << #name;                       \
    EXPECT_EQ(report.has(Kind::kKink), std::string_view(#name) == "slstm") << #name; \
  }
    PARARNN_CELLS(PARARNN_CHECK)
#undef PARARNN_CHECK
}

TEST(Derivatives, AKinkIsNamedByWhatItIsOf) {
  const DerivativeReport report = check_derivatives(make_analysis<Rectified>(), {});
  ASSERT_EQ(report.irregularities.size(), 1u);
  const Irregularity& kink = report.irregularities.front();
  EXPECT_EQ(kink.kind, Kind::kKink);
  EXPECT_EQ(kink.component, 1);
  EXPECT_EQ(kink.argument, Rectified::kState + 1);
  EXPECT_NEAR(kink.at, 0.25, 1e-8);
  EXPECT_NEAR(kink.left, 0, 1e-12);
  EXPECT_NEAR(kink.right, 1, 1e-12);
  EXPECT_EQ(report.has_effect, std::vector<bool>(6, true));
  EXPECT_LT(report.largest_error, 1e-7);
}

TEST(Derivatives, AThresholdIsAJump) {
  const DerivativeReport report = check_derivatives(make_analysis<Threshold>(), {});
  ASSERT_EQ(report.irregularities.size(), 1u);
  const Irregularity& jump = report.irregularities.front();
  EXPECT_EQ(jump.kind, Kind::kJump);
  EXPECT_EQ(jump.argument, Threshold::kState);
  EXPECT_NEAR(jump.at, 0.5, 1e-8);
  EXPECT_NEAR(jump.right - jump.left, 2, 1e-6);
}

TEST(Derivatives, ArgumentsWithoutEffectAreTold) {
  const DerivativeReport report = check_derivatives(make_analysis<Logistic>(), {});
  EXPECT_EQ(report.has_effect, (std::vector<bool>{true, false}));
}

TEST(Derivatives, AWrongOneIsSaidToBeWrong) {
  const DerivativeReport report = check_derivatives(make_analysis<Misjudged>(), {});
  ASSERT_EQ(report.irregularities.size(), 1u);
  const Irregularity& wrong = report.irregularities.front();
  EXPECT_EQ(wrong.kind, Kind::kWrongDerivative);
  EXPECT_EQ(wrong.argument, Misjudged::kState + 1);
  EXPECT_NEAR(wrong.left, 1.1 * wrong.right, 1e-6);
  EXPECT_GT(report.largest_error, 1e-3);
}

template <class C>
std::map<std::string, int> counted_operations() {
  std::map<std::string, int> counts;
  for (const TracedOperation& traced : trace_of<C>().list) {
    if (const char* name = counted_name(traced.operation)) ++counts[name];
  }
  return counts;
}

TEST(Traces, AreCountedAsTheyAreWritten) {
  EXPECT_EQ(counted_operations<Gru>(),
            (std::map<std::string, int>{
                {"sigmoid", 2}, {"tanh", 1}, {"multiplication", 5}, {"addition", 5}}));
  EXPECT_EQ(counted_operations<Rectified>()["tanh"], 1);
  EXPECT_EQ(counted_operations<Rectified>()["comparison"], 1);
  // Operations on constants are none.
  EXPECT_EQ(counted_operations<Logistic>()["addition"], 3);
}

/// All that a step may be made of.
struct Everything {
  static constexpr int kState = 3, kInputs = 2, kParams = 1;

  template <class T>
  static constexpr Vec<T, 3> step(const Vec<T, 3>& h, const Vec<T, 2>& u, const Vec<T, 1>& w) {
    const auto inside = h[0] < u[0] && !(u[1] <= 0.5 || h[1] > 2.0);
    const T a = select(inside, max(h[0], 0.25), min(u[1], h[1])) + erf(sin(u[0]) * cos(w[0]));
    const T b = log_sigmoid(a) + softplus(u[1]) - sqrt(abs(h[1]) + 1) / exp(-abs(a));
    const T c = pow(abs(u[0]) + 1, w[0]) + pow(h[2], 3) + floor(3 * u[0]) + relu(h[2]);
    return {a, b * sigmoid(c), T(2) + T(1)};
  }
};

/// Run on doubles, a trace is the step, but for how sigmoid and softplus are rounded.
template <class C>
void expect_the_step_of_its_trace(const std::string& name) {
  const CellAnalysis cell = make_analysis<C>();
  const Trace trace = cell.trace();
  std::mt19937 generator(5);
  std::normal_distribution<double> normal(0, 1.5);
  for (int i = 0; i < 200; ++i) {
    std::vector<Number<double>> arguments;
    std::vector<double> plain, next(cell.state);
    for (int k = 0; k < cell.arguments(); ++k) {
      plain.push_back(normal(generator));
      arguments.emplace_back(plain.back());
    }
    cell.twice.step(plain.data(), plain.data() + cell.state,
                    plain.data() + cell.state + cell.inputs, next.data());
    const auto traced = evaluate(trace, arguments);
    for (int s = 0; s < cell.state; ++s) {
      if (std::isnan(next[s])) {
        EXPECT_TRUE(std::isnan(traced[s].value)) << name;
      } else {
        EXPECT_NEAR(traced[s].value, next[s], 1e-12 * (1 + std::abs(next[s]))) << name;
      }
    }
  }
}

TEST(Traces, AreTheStep) {
#define PARARNN_CHECK(name, Type) expect_the_step_of_its_trace<Type>(#name);
  PARARNN_CELLS(PARARNN_CHECK)
#undef PARARNN_CHECK
  expect_the_step_of_its_trace<Everything>("everything");
  const Trace trace = trace_of<Everything>();
  const auto count = [&](Operation operation) {
    return std::ranges::count(trace.list, operation, &TracedOperation::operation);
  };
  // Recognised where they are composed; relu is one more max.
  EXPECT_EQ(count(Operation::kMax), 2);
  EXPECT_EQ(count(Operation::kMin), 1);
  EXPECT_EQ(count(Operation::kLogSigmoid), 1);
}

TEST(Channels, FollowFromTheirSeedAndRoles) {
  const CellAnalysis gru = make_analysis<Gru>();
  RandomChannel a(gru, {2, -1, {1}}, {1, 100}, 7), b(gru, {2, -1, {1}}, {1, 100}, 7);
  for (int t = 0; t < 10; ++t) {
    const double* u = a.next_inputs();
    const double* v = b.next_inputs();
    for (int i = 0; i < 3; ++i) EXPECT_EQ(u[i], v[i]);
    EXPECT_LT(std::abs(u[0]), 10);
    EXPECT_EQ(u[1], 1);
    EXPECT_NEAR(u[2], -100, 10);
  }
}

}  // namespace
}  // namespace pararnn
