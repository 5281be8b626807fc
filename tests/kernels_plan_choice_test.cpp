// Learning which plan is fastest, against made-up machines: what is chosen is the fastest there is,
// and a change of the cell's memory is noticed.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <tuple>

#include "kernels/cuda/plan_choice.hpp"

namespace pararnn {
namespace {

// A machine on which a plan takes as long as it costs, and a burn-in too short for the memory makes
// a pass in parallel cost several times as much.
struct Machine {
  PlanRequest request{
      .batch = 1, .steps = 65536, .channels = 512, .lanes = 64, .threads = 100, .step_slope = 0.35};
  int64_t memory = 50;
  double speed = 1e-4;  // milliseconds a unit of cost
  int64_t calls = 0;

  bool forgets(const Plan& plan) const {
    return plan.way == Way::kSequential || plan.burn_in >= memory;
  }
  double milliseconds(const Plan& plan) const {
    const double penalty = forgets(plan) ? 1 : plan.way == Way::kNewton ? 1.2 : 5;
    return speed * penalty * plan_cost(request, plan);
  }
  void run(PlanChoice& choice, int times) {
    for (int i = 0; i < times; ++i) {
      ++calls;
      if (!choice.wants_time()) continue;
      const Plan plan = choice.next();
      choice.record(milliseconds(plan), forgets(plan) ? 0 : 0.7);
    }
  }
};

TEST(PlanChoice, TakesThePlannersPlanWhereTheCellForgets) {
  Machine machine;
  PlanChoice choice(machine.request);
  EXPECT_EQ(choice.best(), make_plan(machine.request));
  machine.run(choice, 100);
  EXPECT_EQ(choice.best(), make_plan(machine.request));
}

// Replays of a CUDA graph are calls that are told of later.
TEST(PlanChoice, IsTimedAgainAfterSoManyCallsHoweverTheyAreTold) {
  Machine machine;
  PlanChoice choice(machine.request);
  EXPECT_TRUE(choice.exploring());
  machine.run(choice, 100);
  EXPECT_FALSE(choice.exploring());
  while (!choice.wants_time()) {
  }
  choice.record(machine.milliseconds(choice.next()), 0);
  EXPECT_FALSE(choice.wants_time());
  EXPECT_FALSE(choice.wants_time(10));
  EXPECT_TRUE(choice.wants_time(1000));
  choice.record(machine.milliseconds(choice.next()), 0.7);  // it remembers now
  EXPECT_TRUE(choice.exploring());
}

TEST(PlanChoice, TakesTheFastestOfThePlannersPlans) {
  Machine machine;
  PlanChoice choice(machine.request);
  const Plan second = candidate_plans(machine.request)[1];
  for (int i = 0; i < 20; ++i) {
    if (choice.wants_time()) choice.record(choice.next() == second ? 1.0 : 2.0, 0);
  }
  EXPECT_EQ(choice.best(), second);
}

TEST(PlanChoice, TakesALongerBurnInOrNewtonWhereTheCellRemembers) {
  Machine machine;
  machine.memory = 200;
  PlanChoice choice(machine.request);
  machine.run(choice, 40);
  EXPECT_EQ(choice.best().way, Way::kSpeculative);
  EXPECT_EQ(choice.best().burn_in, 256);
  machine.memory = 100000;
  machine.run(choice, 3000);
  EXPECT_EQ(choice.best().way, Way::kNewton);
}

TEST(PlanChoice, TakesTheRunInOrderWhereNothingElseIsFaster) {
  Machine machine;
  machine.request.steps = 2048;
  machine.request.channels = 4096;
  machine.memory = 100000;
  PlanChoice choice(machine.request);
  for (int i = 0; i < 40; ++i) {
    if (!choice.wants_time()) continue;
    choice.record(choice.next().way == Way::kSequential ? 1.0 : 3.0, 1);
  }
  EXPECT_EQ(choice.best().way, Way::kSequential);
}

// There the planner itself would run in order next.
TEST(PlanChoice, TakesTheRunInOrderAlsoWhereItIsAmongThePlannersPlans) {
  Machine machine;
  machine.request = {.batch = 32,
                     .steps = 2048,
                     .channels = 768,
                     .lanes = 64,
                     .threads = 132,
                     .step_base = 0.67,
                     .step_slope = 0.165};
  ASSERT_NE(candidate_plans(machine.request)[0].way, Way::kSequential);
  PlanChoice choice(machine.request);
  for (int i = 0; i < 60; ++i) {
    if (!choice.wants_time()) continue;
    choice.record(choice.next().way == Way::kSequential ? 1.0 : 1.5, 0.6);
  }
  EXPECT_EQ(choice.best().way, Way::kSequential);
}

TEST(PlanChoice, NoticesThatTheMemoryChanged) {
  Machine machine;
  PlanChoice choice(machine.request);
  machine.run(choice, 100);
  EXPECT_EQ(choice.best().burn_in, kDefaultBurnIn);
  machine.memory = 200;
  machine.run(choice, 100);
  EXPECT_EQ(choice.best().burn_in, 256);
  machine.memory = 50;
  machine.run(choice, 3000);
  EXPECT_EQ(choice.best().burn_in, kDefaultBurnIn);
}

TEST(PlanChoice, TakesAShorterBurnInWhereThatLeavesNothingToCorrect) {
  Machine machine;
  machine.request.steps = 2048;
  machine.memory = 40;
  PlanChoice choice(machine.request);
  machine.run(choice, 100);
  EXPECT_EQ(choice.best().burn_in, 48);
  EXPECT_EQ(choice.best().chunks, make_plan(machine.request).chunks);
  machine.memory = 50;
  machine.run(choice, 3000);
  EXPECT_EQ(choice.best().burn_in, kDefaultBurnIn);
}

TEST(PlanChoice, AFewCorrectedColumnsAreNoReasonToTryAllThingsAllTheTime) {
  Machine machine;
  PlanChoice choice(machine.request);
  machine.run(choice, 100);
  const Plan first = choice.best();
  int others = 0;
  for (int i = 0; i < 3200; ++i) {
    if (!choice.wants_time()) continue;
    others += choice.next() != first;
    choice.record(machine.milliseconds(choice.next()), 1e-4);
  }
  EXPECT_GT(others, 0);
  EXPECT_LE(others, 600);
}

TEST(PlanChoice, NeverTriesWhatCannotBeFaster) {
  Machine machine;
  machine.request.steps = 1 << 24;  // in order: 0.7 s at least
  machine.request.channels = 64;
  machine.memory = 200;
  PlanChoice choice(machine.request);
  for (int i = 0; i < 60; ++i) {
    if (!choice.wants_time()) continue;
    const Plan plan = choice.next();
    ASSERT_NE(plan.way, Way::kSequential);
    choice.record(machine.milliseconds(plan), machine.forgets(plan) ? 0 : 1);
  }
}

TEST(PlanChoice, TriesWhatIsClearlySlowerTwiceAndLaterOnce) {
  Machine machine;
  machine.request.steps = 2048;
  machine.request.channels = 4096;
  machine.memory = 100000;
  PlanChoice choice(machine.request);
  const Plan first = choice.best();  // with which the others are compared
  const auto trials_of_slow_plans = [&](int calls) {
    std::map<std::tuple<Way, int64_t, int64_t>, int> trials;
    for (int i = 0; i < calls; ++i) {
      if (!choice.wants_time()) continue;
      const Plan plan = choice.next();
      const bool fast = plan.way == Way::kSequential;
      if (!fast && plan != first) ++trials[{plan.way, plan.chunk, plan.burn_in}];
      choice.record(fast ? 1.0 : 3.0, 1);
    }
    return trials;
  };
  // The first trial may have waited for its kernels.
  for (const auto& [plan, count] : trials_of_slow_plans(60)) EXPECT_LE(count, 2);
  EXPECT_EQ(choice.best().way, Way::kSequential);
  for (const auto& [plan, count] : trials_of_slow_plans(2200)) EXPECT_LE(count, 1);
}

TEST(PlanChoice, TimesFewCallsOnceItHasChosen) {
  Machine machine;
  PlanChoice choice(machine.request);
  machine.run(choice, 100);
  int timed = 0;
  for (int i = 0; i < 3200; ++i) {
    if (!choice.wants_time()) continue;
    ++timed;
    choice.record(machine.milliseconds(choice.next()), 0);
  }
  EXPECT_LE(timed, 100);
}

TEST(PlanChoice, HasNothingToLearnWhereColumnsFillTheMachine) {
  PlanChoice choice({.batch = 64,
                     .steps = 1024,
                     .channels = 4096,
                     .lanes = 64,
                     .threads = 100,
                     .step_slope = 0.35});
  EXPECT_EQ(choice.best().way, Way::kSequential);
  EXPECT_FALSE(choice.wants_time());
}

}  // namespace
}  // namespace pararnn
