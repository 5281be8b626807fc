// The plan: how a sequence of T steps is cut, decided from shapes and the machine alone. A pure
// function, so that it can be tested as a table.
//
//   sequential    one chunk: the plain recurrence, vectorised over columns
//   speculative   chunks that start a burn-in early from a zero state; verified, then corrected
//   newton        the same chunks, whose first pass also computes the Jacobians of a correction
//
// Who names none of them says "auto" or "planner": the cheapest by shapes. (On a GPU, "auto" goes
// on to choose by what calls took: ops/cuda/plan_choice.hpp.)
//
// Chunks cost a burn-in each, and a correction where the cell remembers longer than that; they pay
// when there are too few columns (batch rows times channels) to fill the machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pararnn/error.hpp"
#include "pararnn/method.hpp"

namespace pararnn {

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

/// What a caller may ask for.
inline constexpr std::string_view kPlanNames[] = {"auto", "planner", "sequential", "speculative",
                                                  "newton"};

struct Plan {
  Way way = Way::kSequential;
  std::int64_t chunk = 0;    // steps a chunk, a multiple of kChunkUnit (or all of T)
  std::int64_t chunks = 1;   // ceil(T / chunk)
  std::int64_t burn_in = 0;  // steps, a multiple of kChunkUnit, at most a chunk

  bool operator==(const Plan&) const = default;
};

/// What is to be run, and where. A CPU has threads that each take groups of `lanes` columns, one
/// after another. A GPU, where step_slope > 0, has multiprocessors that each hold several blocks of
/// `lanes` columns at once: with n of them a step takes max(1, step_base + step_slope n).
struct PlanRequest {
  std::int64_t batch = 1, steps = 0, channels = 1;
  int lanes = 16;   // columns that one thread advances together, or of a block
  int threads = 1;  // of the machine, or multiprocessors
  std::string_view way = "auto";
  std::int64_t chunk = 0;     // 0: chosen here
  std::int64_t burn_in = -1;  // -1: chosen here
  double step_base = 0, step_slope = 0;
};

/// Burn-in that lets a gated cell with weights up to 1 forget its start to 1e-7.
inline constexpr std::int64_t kDefaultBurnIn = 64;

/// Chunks shorter than this spend too much of their time on the burn-in.
inline constexpr std::int64_t kShortestChunk = 128, kShortestChunkOnGpu = 64;

/// Blocks on a multiprocessor that a plan may count on.
inline constexpr int kMostBlocks = 8;

namespace detail {

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline std::int64_t whole_checkpoints(std::int64_t steps) {
  return divide_up(steps, kChunkUnit) * kChunkUnit;
}

}  // namespace detail

/// What a plan costs, before any correction: the steps that the busiest thread takes over all its
/// groups of lanes, or the time of a multiprocessor's steps. Newton's way runs each chunk twice.
inline double plan_cost(const PlanRequest& r, const Plan& plan) {
  using namespace detail;
  const std::int64_t groups = divide_up(r.batch * r.channels * plan.chunks, r.lanes);
  const double most = double(divide_up(groups, r.threads));
  const double step = r.step_slope > 0 ? std::max(1.0, r.step_base + r.step_slope * most) : most;
  if (plan.way == Way::kSequential) return step * double(r.steps);
  return step * double((plan.way == Way::kNewton ? 2 : 1) * plan.chunk + plan.burn_in);
}

/// Throws Error unless `way` is one of kPlanNames, `chunk` is 0 (the planner's choice) or steps,
/// and `burn_in` -1 (the planner's choice) or steps. Any number of steps will do: a chunk has at
/// most the sequence's, and a burn-in at most a chunk's.
inline void check_plan_options(std::string_view way, std::int64_t chunk, std::int64_t burn_in) {
  if (std::find(std::begin(kPlanNames), std::end(kPlanNames), way) == std::end(kPlanNames)) {
    std::string names;
    for (const std::string_view name : kPlanNames) {
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    throw Error("there is no plan '" + std::string(way) + "'; the plans are " + names);
  }
  if (chunk < 0) {
    throw Error("chunk is " + std::to_string(chunk) +
                ", but should be the steps of a chunk, or 0 for the planner's choice");
  }
  if (burn_in < -1) {
    throw Error("burn_in is " + std::to_string(burn_in) +
                ", but should be the steps of a burn-in, or -1 for the planner's choice");
  }
}

/// All plans for a request that are worth a thought, the cheapest first. At least one. Throws as
/// check_plan_options.
inline std::vector<Plan> candidate_plans(const PlanRequest& r) {
  using namespace detail;
  check_plan_options(r.way, r.chunk, r.burn_in);
  const bool automatic = r.way == "auto" || r.way == "planner";
  const Plan sequential{Way::kSequential, r.steps, 1, 0};
  if (r.way == "sequential" || r.steps <= kChunkUnit) return {sequential};

  const std::int64_t burn_in =
      r.burn_in >= 0 ? whole_checkpoints(std::min(r.burn_in, r.steps)) : kDefaultBurnIn;
  std::vector<Plan> plans;
  const auto add = [&](std::int64_t chunk) {
    chunk = whole_checkpoints(std::min(chunk, r.steps));
    if (chunk >= r.steps) return;
    const Plan plan{r.way == "newton" ? Way::kNewton : Way::kSpeculative, chunk,
                    divide_up(r.steps, chunk), std::min(burn_in, chunk)};
    if (plans.empty() || plans.back() != plan) plans.push_back(plan);
  };
  if (r.chunk > 0) {
    add(r.chunk);
    return plans.empty() ? std::vector<Plan>{sequential} : plans;
  }
  const std::int64_t columns = r.batch * r.channels, machine = std::int64_t(r.lanes) * r.threads;
  const std::int64_t shortest = !automatic         ? kChunkUnit
                                : r.step_slope > 0 ? kShortestChunkOnGpu
                                                   : kShortestChunk;
  if (!automatic) add(divide_up(r.steps, 2));
  if (r.step_slope > 0) {
    // As many chunks as fill a whole number of blocks on each multiprocessor.
    for (int blocks = 1; blocks <= kMostBlocks; ++blocks) {
      const std::int64_t chunks = blocks * machine / std::max<std::int64_t>(columns, 1);
      if (chunks >= 2) add(std::max(divide_up(r.steps, chunks), shortest));
    }
  } else {
    for (std::int64_t chunks = 2; divide_up(r.steps, chunks) >= shortest; ++chunks) {
      add(divide_up(r.steps, chunks));
      if (chunks * columns > 4 * machine) break;
    }
  }
  // A chunked pass also verifies, and may correct: it has to be clearly cheaper than to run in
  // order. Of plans that cost about the same, the one with the fewest chunks.
  constexpr double kClearly = 0.8, kAbout = 0.98;
  if (automatic) {
    const double bar = kClearly * plan_cost(r, sequential);
    std::erase_if(plans, [&](const Plan& plan) { return plan_cost(r, plan) >= bar; });
    plans.push_back(sequential);
  }
  if (plans.empty()) return {sequential};
  const auto cost = [&](const Plan& plan) { return plan_cost(r, plan); };
  std::stable_sort(plans.begin(), plans.end(),
                   [&](const Plan& a, const Plan& b) { return cost(a) < cost(b); });
  size_t best = 0;
  for (size_t i = 1; i < plans.size() && kAbout * cost(plans[i]) <= cost(plans[0]); ++i) {
    if (plans[i].chunks < plans[best].chunks) best = i;
  }
  std::rotate(plans.begin(), plans.begin() + std::ptrdiff_t(best),
              plans.begin() + std::ptrdiff_t(best) + 1);
  return plans;
}

/// Chooses the way, the chunks and the burn-in. Throws as candidate_plans.
inline Plan make_plan(const PlanRequest& request) { return candidate_plans(request).front(); }

}  // namespace pararnn
