// The planner: a table of what it decides, and what holds for every plan.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "pararnn/plan.hpp"

namespace pararnn {
namespace {

TEST(EnginePlan, Table) {
  struct Row {
    const char* what;
    PlanRequest request;
    Plan plan;
  };
  const Row rows[] = {
      {"columns fill the machine", {8, 1024, 512, 32, 2, "auto"}, {Way::kSequential, 1024, 1, 0}},
      {"no steps", {4, 0, 8, 16, 2, "auto"}, {Way::kSequential, 0, 1, 0}},
      {"one step, forced", {1, 1, 1, 16, 2, "newton"}, {Way::kSequential, 1, 1, 0}},
      {"shorter than a checkpoint", {1, 16, 1, 16, 2, "speculative"}, {Way::kSequential, 16, 1, 0}},
      {"given", {1, 1000, 4, 16, 2, "newton", 128, 32}, {Way::kNewton, 128, 8, 32}},
      {"rounded to checkpoints",
       {1, 1000, 4, 16, 2, "speculative", 100, 20},
       {Way::kSpeculative, 112, 9, 32}},
      {"burn-in of at most a chunk",
       {1, 1000, 4, 16, 2, "newton", 32, 500},
       {Way::kNewton, 32, 32, 32}},
      {"a chunk as long as the sequence",
       {1, 100, 4, 16, 2, "newton", 100},
       {Way::kSequential, 100, 1, 0}},
      {"sequential ignores a chunk",
       {1, 100, 4, 16, 2, "sequential", 16, 16},
       {Way::kSequential, 100, 1, 0}},
  };
  for (const Row& row : rows) {
    const Plan plan = make_plan(row.request);
    EXPECT_EQ(plan, row.plan) << row.what << ": " << way_name(plan.way) << " " << plan.chunk << " "
                              << plan.chunks << " " << plan.burn_in;
  }
}

TEST(EnginePlan, FewColumnsAreCutIntoChunksThatFillTheMachine) {
  const Plan narrow = make_plan({1, 4096, 8, 32, 2, "auto"});
  EXPECT_EQ(narrow.way, Way::kSpeculative);
  EXPECT_GE(narrow.chunks * 8, 32 * 2);
  const Plan single = make_plan({1, 131072, 1, 32, 2, "auto"});
  EXPECT_GE(single.chunks, 32 * 2);
}

TEST(EnginePlan, EveryPlanCoversTheSequenceInWholeCheckpoints) {
  std::mt19937 generator(1);
  const auto below = [&](std::int64_t n) { return std::int64_t(generator() % n); };
  const char* ways[] = {"auto", "sequential", "speculative", "newton"};
  for (int i = 0; i < 20000; ++i) {
    const PlanRequest r{
        below(9),       below(1 + below(200000)), below(600),    1 << below(6), int(1 + below(64)),
        ways[below(4)], below(2) * below(300),    below(200) - 1};
    const Plan plan = make_plan(r);
    const std::string what = std::string(r.way) + " B" + std::to_string(r.batch) + " T" +
                             std::to_string(r.steps) + " D" + std::to_string(r.channels) +
                             " chunk " + std::to_string(r.chunk);
    ASSERT_GE(plan.chunks, 1) << what;
    ASSERT_GE(plan.chunk * plan.chunks, r.steps) << what;
    ASSERT_TRUE(plan.chunks == 1 || plan.chunk * (plan.chunks - 1) < r.steps) << what;
    ASSERT_GE(plan.burn_in, 0) << what;
    ASSERT_LE(plan.burn_in, plan.chunk) << what;
    ASSERT_EQ(plan.burn_in % kChunkUnit, 0) << what;
    if (plan.chunks > 1) {
      ASSERT_EQ(plan.chunk % kChunkUnit, 0) << what;
      ASSERT_NE(plan.way, Way::kSequential) << what;
    } else {
      ASSERT_EQ(plan.way, Way::kSequential) << what;
    }
    if (r.way == "sequential") {
      ASSERT_EQ(plan.chunks, 1) << what;
    }
    if (r.way == "newton" && plan.chunks > 1) {
      ASSERT_EQ(plan.way, Way::kNewton) << what;
    }
    ASSERT_EQ(plan, make_plan(r)) << what;
  }
}

TEST(EnginePlan, ForcedPlansCutEverySequenceThatCanBeCut) {
  for (const char* way : {"speculative", "newton"}) {
    for (const std::int64_t steps : {33, 100, 1000, 5000}) {
      EXPECT_GT(make_plan({64, steps, 512, 16, 2, way}).chunks, 1) << way << " " << steps;
    }
  }
}

TEST(EnginePlan, ChunksAndBurnInsMayBeLongerThanTheSequence) {
  constexpr std::int64_t kLongest = std::numeric_limits<std::int64_t>::max();
  for (const std::string_view way : kPlanNames) {
    EXPECT_EQ(make_plan({2, 1000, 8, 16, 2, way, kLongest}), (Plan{Way::kSequential, 1000, 1, 0}));
    const Plan plan = make_plan({2, 1000, 8, 16, 2, way, 96, kLongest});
    if (way == "sequential") continue;
    EXPECT_EQ(plan.chunk, 96) << way;
    EXPECT_EQ(plan.burn_in, 96) << way;
  }
}

TEST(EnginePlan, ThePlannersChoiceIsTheAutomaticOne) {
  for (const std::int64_t steps : {1, 100, 4096, 100000}) {
    EXPECT_EQ(candidate_plans({2, steps, 8, 16, 2, "planner"}),
              candidate_plans({2, steps, 8, 16, 2, "auto"}));
  }
}

TEST(EnginePlan, BadRequestsAreToldByName) {
  const auto sentence = [](const PlanRequest& r) -> std::string {
    try {
      make_plan(r);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(sentence({1, 100, 1, 16, 1, "fast"}).find("'fast'"), std::string::npos);
  EXPECT_NE(sentence({1, 100, 1, 16, 1, "fast"}).find("speculative"), std::string::npos);
  EXPECT_NE(sentence({1, 100, 1, 16, 1, "auto", -1}).find("chunk is -1"), std::string::npos);
  EXPECT_NE(sentence({1, 100, 1, 16, 1, "sequential", -1}).find("chunk is -1"), std::string::npos);
  EXPECT_NE(sentence({1, 100, 1, 16, 1, "auto", 0, -2}).find("burn_in is -2"), std::string::npos);
}

}  // namespace
}  // namespace pararnn
