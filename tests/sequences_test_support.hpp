// What the tests of packed sequences share on both devices.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine_test_support.hpp"

namespace pararnn::test {

/// Offsets of sequences of about the mean length, some of them empty or of one step.
inline std::vector<int> random_offsets(std::int64_t steps, double mean, std::mt19937& generator) {
  std::vector<int> offsets = {0};
  while (offsets.back() < steps) {
    const bool special = generator() % 4 == 0;
    const std::int64_t length = special ? std::int64_t(generator() % 2)
                                        : std::int64_t(generator() % std::int64_t(2 * mean)) + 1;
    offsets.push_back(int(std::min(steps, offsets.back() + length)));
  }
  if (generator() % 2 == 0) offsets.push_back(int(steps));
  return offsets;
}

inline std::vector<unsigned char> random_reset(const Shape& shape, double mean,
                                               std::mt19937& generator) {
  std::vector<unsigned char> reset(shape.batch * shape.steps);
  for (auto& flag : reset) flag = generator() % std::int64_t(mean) == 0;
  return reset;
}

template <class T>
std::string describe(const Problem<T>& p, const Running& how) {
  std::string text = std::string("B") + std::to_string(p.shape.batch) + " T" +
                     std::to_string(p.shape.steps) + " D" + std::to_string(p.shape.channels) +
                     " plan " + how.way + " chunk " + std::to_string(how.chunk) + " burn-in " +
                     std::to_string(how.burn_in);
  for (const int offset : p.offsets) text.append(" ").append(std::to_string(offset));
  return text;
}

/// Makes an input, or a gradient, in the middle of steps [begin, end) not finite.
template <class T>
void spoil(Problem<T>& p, std::int64_t begin, std::int64_t end, double special, bool backward) {
  const std::int64_t step = (begin + end) / 2, D = p.shape.channels;
  for (std::int64_t d = 0; d < D; ++d) {
    if (backward) {
      p.dy[step * D + d] = T(special);
    } else {
      for (int i = 0; i < p.U; ++i) p.u[(step * p.U + i) * D + d] = T(special);
    }
  }
}

/// Expects about equal numbers of all sequences but one.
template <class T>
void expect_same_outside(const Problem<T>& p, const Result<T>& got, const Result<T>& expected,
                         int spoilt) {
  const double permitted = sizeof(T) == 8 ? 1e-10 : 1e-3;
  const auto compare = [&](const std::vector<T>& a, const std::vector<T>& b, std::int64_t first,
                           std::int64_t last, const char* name) {
    for (std::int64_t i = first; i < last; ++i) {
      ASSERT_TRUE(std::abs(a[i] - b[i]) <= permitted * (1 + std::abs(b[i])))
          << name << " " << i << ": " << a[i] << " is not " << b[i];
    }
  };
  const std::int64_t D = p.shape.channels;
  for (int n = 0; n + 1 < int(p.offsets.size()); ++n) {
    if (n == spoilt) continue;
    const std::int64_t first = p.offsets[n], last = p.offsets[n + 1];
    compare(got.y, expected.y, first * D, last * D, "y");
    compare(got.du, expected.du, first * p.U * D, last * p.U * D, "du");
    compare(got.hT, expected.hT, n * p.S * D, (n + 1) * p.S * D, "hT");
    compare(got.dh0, expected.dh0, n * p.S * D, (n + 1) * p.S * D, "dh0");
  }
}

}  // namespace pararnn::test
