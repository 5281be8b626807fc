// The largest Lyapunov exponent: the rate at which two neighbouring trajectories part, as the mean
// of log |J_t v| along a trajectory whose direction v is normalised after each step (Benettin,
// Galgani, Giorgilli, Strelcyn 1980).
//
// Negative: a start is forgotten at that rate, and chunks can be run from guesses. Positive: to
// know the state n steps ahead takes exponent · n / log(10) digits more of the start, so no method
// that does not walk the steps in order can find it from rounded numbers.
#pragma once

#include "pararnn/analysis/channel.hpp"

namespace pararnn {

/// A step that forgets more than what a double holds counts as this much: log 2^-53.
inline constexpr double kLeastExponent = -36.7;

struct LyapunovExponent {
  double rate = 0;      // a step
  bool bounded = true;  // else the state grew beyond all bounds, and the rate is that until then
};

/// Of one channel, after a transient.
inline LyapunovExponent lyapunov_exponent(const CellAnalysis& cell, RandomChannel& random,
                                          std::int64_t transient = 512, std::int64_t steps = 4096) {
  const auto S = static_cast<std::size_t>(cell.state);
  // The direction is the first column of m; the others are zero and stay so.
  std::vector<double> state(S), next(S), m(S * S), product(S * S);
  const auto point_somewhere = [&] {
    for (std::size_t s = 0; s < S; ++s) m[s * S] = 1 / std::sqrt(double(S));
  };
  point_somewhere();
  double sum = 0;
  std::int64_t counted = 0;
  bool bounded = true;
  for (std::int64_t t = 0; t < transient + steps; ++t) {
    cell.twice.linearize(state.data(), random.next_inputs(), random.weights(), m.data(),
                         next.data(), product.data());
    state.swap(next);
    m.swap(product);
    double square = 0;
    for (std::size_t s = 0; s < S; ++s) {
      square += m[s * S] * m[s * S];
      bounded = bounded && std::abs(state[s]) < 1e100;
    }
    const double length = std::sqrt(square);
    bounded = bounded && std::isfinite(length);
    if (!bounded) break;
    const double rate = length > 0 ? std::max(std::log(length), kLeastExponent) : kLeastExponent;
    if (length > 0) {
      for (std::size_t s = 0; s < S; ++s) m[s * S] /= length;
    } else {
      point_somewhere();
    }
    // A trajectory that ends within the transient is judged by that.
    if (t == transient) sum = 0, counted = 0;
    sum += rate;
    ++counted;
  }
  return {counted > 0 ? sum / double(counted) : 0, bounded};
}

struct LyapunovExponents {
  double mean = 0, largest = 0;  // over the channels, per step
  double chaotic = 0;            // share of the channels whose exponent is positive
  double unbounded = 0;          // share of the channels whose state grows beyond all bounds
};

/// An exponent counts as positive from here on: e-fold in a thousand steps. Closer to zero a finite
/// trajectory does not tell.
inline constexpr double kPositiveExponent = 1e-3;

/// Random channels in one regime.
inline LyapunovExponents measure_lyapunov(const CellAnalysis& cell, const InputRoles& roles,
                                          const Regime& regime, int channels = 16,
                                          std::uint64_t seed = 3) {
  LyapunovExponents result{.largest = -HUGE_VAL};
  for (int channel = 0; channel < channels; ++channel) {
    RandomChannel random(cell, roles, regime, seed * 1000 + std::uint64_t(channel));
    const auto [rate, bounded] = lyapunov_exponent(cell, random);
    result.mean += rate / channels;
    result.largest = std::max(result.largest, rate);
    result.chaotic += (rate > kPositiveExponent) / double(channels);
    result.unbounded += !bounded / double(channels);
  }
  return result;
}

}  // namespace pararnn
