// The plan: how a sequence of T steps is cut, decided from shapes and the machine alone. A pure
// function, so that it can be tested as a table.
//
//   sequential    one chunk: the plain recurrence, vectorised over columns
//   speculative   chunks that start a burn-in early from a zero state; verified, then corrected
//   newton        the same chunks, whose first pass also computes the Jacobians of a correction
//
// Chunks cost a burn-in each, and a correction where the cell remembers longer than that; they pay
// when there are too few columns (batch rows times channels) to fill the machine.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pararnn {

/// Steps from one checkpoint of the state to the next; chunks are whole numbers of them.
inline constexpr std::int64_t kCheckpointInterval = 16;

/// Most Newton corrections before the chunks that are still wrong are walked in order.
inline constexpr int kMaxNewtonIterations = 8;

enum class Way { kSequential, kSpeculative, kNewton };

inline std::string_view way_name(Way way) {
  switch (way) {
    case Way::kSequential:
      return "sequential";
    case Way::kSpeculative:
      return "speculative";
    default:
      return "newton";
  }
}

struct Plan {
  Way way = Way::kSequential;
  std::int64_t chunk = 0;    // steps a chunk, a multiple of kCheckpointInterval (or all of T)
  std::int64_t chunks = 1;   // ceil(T / chunk)
  std::int64_t burn_in = 0;  // steps, a multiple of kCheckpointInterval, at most a chunk

  bool operator==(const Plan&) const = default;
};

/// What is to be run, and where.
struct PlanRequest {
  std::int64_t batch = 1, steps = 0, channels = 1;
  int lanes = 16;   // columns that one thread advances together
  int threads = 1;  // of the machine
  std::string_view way = "auto";
  std::int64_t chunk = 0;     // 0: chosen here
  std::int64_t burn_in = -1;  // -1: chosen here
};

/// Burn-in that lets a gated cell with weights up to 1 forget its start to 1e-7.
inline constexpr std::int64_t kDefaultBurnIn = 64;

/// Chunks shorter than this spend too much of their time on the burn-in.
inline constexpr std::int64_t kShortestChunk = 128;

namespace detail {

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline std::int64_t whole_checkpoints(std::int64_t steps) {
  return divide_up(steps, kCheckpointInterval) * kCheckpointInterval;
}

/// Steps that the busiest thread takes, over all the groups of lanes it gets.
inline double cost(const PlanRequest& r, std::int64_t chunk, std::int64_t burn_in) {
  const std::int64_t chunks = divide_up(r.steps, chunk);
  const std::int64_t groups = divide_up(r.batch * r.channels * chunks, r.lanes);
  const std::int64_t rounds = divide_up(groups, r.threads);
  return double(rounds) * double(chunks == 1 ? r.steps : chunk + burn_in);
}

}  // namespace detail

/// Chooses the way, the chunks and the burn-in. Throws std::invalid_argument for a way that does
/// not exist or a negative length.
inline Plan make_plan(const PlanRequest& r) {
  using namespace detail;
  const bool automatic = r.way == "auto";
  if (!automatic && r.way != "sequential" && r.way != "speculative" && r.way != "newton") {
    throw std::invalid_argument("there is no plan '" + std::string(r.way) +
                                "'; the plans are auto, sequential, speculative, newton");
  }
  if (r.chunk < 0 || r.burn_in < -1) {
    throw std::invalid_argument("a chunk and a burn-in cannot have a negative number of steps");
  }
  const Plan sequential{Way::kSequential, r.steps, 1, 0};
  if (r.way == "sequential" || r.steps <= kCheckpointInterval) return sequential;

  const std::int64_t wanted_burn_in =
      r.burn_in >= 0 ? whole_checkpoints(r.burn_in) : kDefaultBurnIn;
  std::int64_t chunk = whole_checkpoints(r.chunk);
  if (r.chunk == 0) {
    // Halve the chunks for as long as that shortens the work of the busiest thread.
    std::int64_t best = whole_checkpoints(divide_up(r.steps, automatic ? 1 : 2));
    const std::int64_t shortest = automatic ? kShortestChunk : kCheckpointInterval;
    for (std::int64_t n = 2; divide_up(r.steps, n) >= shortest; ++n) {
      const std::int64_t candidate = whole_checkpoints(divide_up(r.steps, n));
      // A chunked pass also verifies, and may correct: it has to be clearly cheaper.
      const double bar = best >= r.steps ? 0.8 : 0.98;
      if (cost(r, candidate, wanted_burn_in) < bar * cost(r, best, wanted_burn_in)) {
        best = candidate;
      }
      if (n * r.batch * r.channels > 4 * std::int64_t(r.lanes) * r.threads) break;
    }
    chunk = best;
  }
  if (chunk >= r.steps) return sequential;
  return {r.way == "newton" ? Way::kNewton : Way::kSpeculative, chunk, divide_up(r.steps, chunk),
          wanted_burn_in < chunk ? wanted_burn_in : chunk};
}

}  // namespace pararnn
