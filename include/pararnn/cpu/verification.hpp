// What the forward and the backward driver share: running a pass over groups of lanes, and
// comparing the numbers on the two sides of each boundary between chunks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "pararnn/cpu/parallel.hpp"
#include "pararnn/cpu/problem.hpp"
#include "pararnn/statistics.hpp"

namespace pararnn::cpu {

static_assert(kChunkUnit % kCheckpointInterval == 0);

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

/// The starts of all blocks of all rows (B,ceil(T/16)); none where no state starts anew.
inline std::vector<BlockStarts> block_starts(const Chunking& size, const Sequences& sequences) {
  std::vector<BlockStarts> starts;
  for (std::int64_t b = 0; !sequences.none() && b < size.batch; ++b) {
    for (std::int64_t t = 0; t < size.steps; t += kCheckpointInterval) {
      const int n = sequences.offsets ? sequence_at(sequences.offsets, sequences.count, t) : 0;
      starts.push_back(starts_of_block<kCheckpointInterval>(sequences, size.steps, b, t, n));
    }
  }
  return starts;
}

/// The number of the initial state of a row's first step, or -1 where that is zero.
inline std::int64_t first_state(const Sequences& sequences, const Chunking& size, std::int64_t b) {
  if (sequences.offsets) return sequence_at(sequences.offsets, sequences.count, 0);
  return sequences.reset && sequences.reset[b * size.steps] ? -1 : b;
}

/// The number of the final state of a row's last step.
inline std::int64_t last_state(const Sequences& sequences, const Chunking& size, std::int64_t b) {
  if (!sequences.offsets) return b;
  return sequence_at(sequences.offsets, sequences.count, size.steps - 1);
}

/// A sequence without steps ends as it begins: copies its states, each of `width` numbers; zeros
/// from null.
template <class T>
void copy_states_of_empty(const Sequences& sequences, std::int64_t width, const T* from, T* to) {
  for (std::int64_t n = 0; n < sequences.count; ++n) {
    if (sequences.offsets[n] != sequences.offsets[n + 1]) continue;
    for (std::int64_t i = n * width; i < (n + 1) * width; ++i) to[i] = from ? from[i] : T(0);
  }
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
std::vector<std::int64_t> failing_columns(const Chunking& size,
                                          const std::vector<std::int64_t>& among, Fails&& fails) {
  std::vector<std::int64_t> failing;
  for (const std::int64_t column : among) {
    const std::int64_t b = column / size.channels, d = column % size.channels;
    std::int64_t p = 0;
    while (p + 1 < size.chunks && !fails(b, p, d)) ++p;
    if (p + 1 < size.chunks) failing.push_back(column);
  }
  return failing;
}

/// The lanes of chunks [first, last) of some columns, in order.
inline std::vector<std::int64_t> lanes_of(const Chunking& size,
                                          const std::vector<std::int64_t>& columns,
                                          std::int64_t first, std::int64_t last) {
  std::vector<std::int64_t> lanes;
  for (const std::int64_t column : columns) {
    for (std::int64_t p = first; p < last; ++p) {
      lanes.push_back(size.lane(column / size.channels, p, column % size.channels));
    }
  }
  std::sort(lanes.begin(), lanes.end());
  return lanes;
}

/// The largest mismatch(b, p, s, d) between chunks p and p + 1; NaN if one is.
template <class MismatchAt>
double largest_mismatch(const Chunking& size, int components, MismatchAt&& mismatch) {
  double largest = 0;
  for (std::int64_t b = 0; b < size.batch; ++b) {
    for (std::int64_t p = 0; p + 1 < size.chunks; ++p) {
      for (int s = 0; s < components; ++s) {
        for (std::int64_t d = 0; d < size.channels; ++d) {
          const double value = mismatch(b, p, s, d).value();
          if (!(value <= largest)) largest = value;
        }
      }
    }
  }
  return largest;
}

/// Whether failing columns are walked in order at once. A walk costs each chunk once and needs
/// failing columns enough to fill the machine; corrections cost more work, but work that runs in
/// parallel along the sequence. Newton's way says that corrections are wanted.
template <class T>
bool walks_at_once(const Plan& plan, std::size_t failing, const Kernels<T>& kernels,
                   const Executor& executor) {
  return plan.way != Way::kNewton &&
         std::int64_t(failing) >= std::int64_t(kernels.lanes) * executor.threads;
}

/// Offset of component s of column (b, d) at chunk p in an array (B,P,S,D).
struct BoundaryIndex {
  std::int64_t chunks, components, channels;
  std::int64_t operator()(std::int64_t b, std::int64_t p, int s, std::int64_t d) const {
    return ((b * chunks + p) * components + s) * channels + d;
  }
};

}  // namespace pararnn::cpu
