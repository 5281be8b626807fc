// How soon does a cell forget where it started? Two trajectories under the same inputs, one from
// the state that the sequence has led to, the other from zero: their mismatch after n steps is what
// a burn-in of n steps leaves at a chunk boundary.
#pragma once

#include "pararnn/analysis/channel.hpp"

namespace pararnn {

struct Forgetting {
  std::vector<std::int64_t> burn_in;  // 1, 2, 4, ...
  std::vector<double> median, worst;  // mismatch over the channels after that burn-in
  /// Steps after which no channel's mismatch is above 1e-3, and 1e-6, again; -1: not within the
  /// longest burn-in.
  std::int64_t steps_to_thousandth = -1, steps_to_millionth = -1;
};

/// Runs `channels` channels for `longest` steps (a power of two) before and after the start.
inline Forgetting measure_forgetting(const CellAnalysis& cell, const InputRoles& roles,
                                     const Regime& regime, int channels = 32,
                                     std::int64_t longest = 4096, std::uint64_t seed = 1) {
  Forgetting result;
  for (std::int64_t n = 1; n <= longest; n *= 2) result.burn_in.push_back(n);
  std::vector<std::vector<double>> at(result.burn_in.size());  // mismatches of the channels
  std::int64_t last_above_thousandth = 0, last_above_millionth = 0;
  for (int channel = 0; channel < channels; ++channel) {
    RandomChannel random(cell, roles, regime, seed * 1000 + std::uint64_t(channel));
    Walker led(cell), from_zero(cell);
    for (std::int64_t t = 0; t < longest; ++t) led.step(random.next_inputs(), random.weights());
    std::size_t sample = 0;
    for (std::int64_t n = 1; n <= longest; ++n) {
      const double* u = random.next_inputs();
      led.step(u, random.weights());
      from_zero.step(u, random.weights());
      const double apart = state_mismatch(led.state().data(), from_zero.state().data(), cell.state);
      if (apart > 1e-3) last_above_thousandth = std::max(last_above_thousandth, n);
      if (apart > 1e-6) last_above_millionth = std::max(last_above_millionth, n);
      if (n == result.burn_in[sample]) at[sample++].push_back(apart);
    }
  }
  for (const std::vector<double>& mismatches : at) {
    result.median.push_back(median_of(mismatches));
    result.worst.push_back(*std::max_element(mismatches.begin(), mismatches.end()));
  }
  const auto steps_until = [&](std::int64_t last) { return last < longest ? last + 1 : -1; };
  result.steps_to_thousandth = steps_until(last_above_thousandth);
  result.steps_to_millionth = steps_until(last_above_millionth);
  return result;
}

}  // namespace pararnn
