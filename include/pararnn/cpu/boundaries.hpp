// What the forward and the backward driver share: running a pass over groups of lanes, comparing
// the two values that meet at a chunk boundary, and counting what was done.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "pararnn/cpu/parallel.hpp"
#include "pararnn/cpu/problem.hpp"

namespace pararnn::cpu {

/// What a pass did. A column is one channel of one batch row.
struct Statistics {
  Plan plan;
  double largest_mismatch = 0;  // as left in the result
  std::int64_t newton_iterations = 0;
  std::int64_t columns = 0, columns_corrected = 0, columns_repaired = 0;
};

/// Runs `kernel(problem, pass, ids, count)` over all lanes of the list, in groups.
template <class T, class Kernel, class Problem, class Pass>
void run_lanes(const Executor& executor, const Kernels<T>& kernels, Kernel kernel,
               const Problem& problem, Pass pass, const std::vector<std::int64_t>& ids) {
  const std::int64_t count = std::int64_t(ids.size());
  const std::int64_t groups = (count + kernels.lanes - 1) / kernels.lanes;
  // Several groups a task where that leaves every thread a few tasks.
  const std::int64_t per_task =
      std::clamp<std::int64_t>(groups / (4 * executor.threads), 1, kGroupsPerTask);
  const std::int64_t lanes_per_task = per_task * kernels.lanes;
  executor.run((groups + per_task - 1) / per_task, [&](std::int64_t task) {
    const std::int64_t first = task * lanes_per_task;
    kernel(problem, pass, ids.data() + first, int(std::min(lanes_per_task, count - first)));
  });
}

/// The numbers of all of `count` columns or lanes.
inline std::vector<std::int64_t> all_of(std::int64_t count) {
  std::vector<std::int64_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

/// The columns (b, d) of a list, as b D + d, where fails(b, p, d) for any boundary between chunks p
/// and p + 1.
template <class Fails>
std::vector<std::int64_t> failing_columns(const Chunking& chunking,
                                          const std::vector<std::int64_t>& among, Fails&& fails) {
  std::vector<std::int64_t> failing;
  for (const std::int64_t column : among) {
    const std::int64_t b = column / chunking.channels, d = column % chunking.channels;
    std::int64_t p = 0;
    while (p + 1 < chunking.chunks && !fails(b, p, d)) ++p;
    if (p + 1 < chunking.chunks) failing.push_back(column);
  }
  return failing;
}

/// Offset of component s of column (b, d) at chunk p in an array (B,P,S,D).
struct BoundaryIndex {
  std::int64_t chunks, components, channels;
  std::int64_t operator()(std::int64_t b, std::int64_t p, int s, std::int64_t d) const {
    return ((b * chunks + p) * components + s) * channels + d;
  }
};

/// |a - b|; 0 for two infinities of a sign or two NaN, NaN or infinity where only one is.
inline double mismatch(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  return std::abs(a - b);
}

}  // namespace pararnn::cpu
