// When a step is run and when it is replayed, on a device whose graphs are the steps themselves.
#include "train/step_graph.hpp"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

/// Counts what is done with steps and graphs; as on a GPU, a capture does nothing else.
struct CountingDevice {
  int64_t steps = 0, captures = 0, replays = 0, releases = 0;
  int64_t learns_until = 0;  // in so many of the first steps

  GraphDevice device() {
    return {.capture =
                [this](const std::function<void()>& run) {
                  ++captures;
                  return run;
                },
            .explored = [this] { return std::min(steps, learns_until); },
            .on_replay = [this] { ++replays; },
            .release_memory = [this] { ++releases; }};
  }
  StepGraph graph() {
    return {[this] { ++steps; }, device()};
  }
};

void run(StepGraph& graph, int64_t times) {
  for (int64_t i = 0; i < times; ++i) graph.run();
}

TEST(StepGraph, WithoutADeviceStepsRun) {
  int64_t steps = 0;
  StepGraph graph([&] { ++steps; }, {});
  EXPECT_FALSE(graph.settled());
  run(graph, 10);
  EXPECT_EQ(steps, 10);
  EXPECT_FALSE(graph.replays());
  EXPECT_TRUE(graph.settled());
  EXPECT_EQ(graph.failure(), "");
}

TEST(StepGraph, AFewStepsRunBeforeItIsCapturedOnce) {
  CountingDevice counting;
  StepGraph graph = counting.graph();
  run(graph, StepGraph::kStepsBefore);
  EXPECT_EQ(counting.captures, 0);
  EXPECT_FALSE(graph.settled());
  run(graph, 5);
  EXPECT_EQ(counting.captures, 1);
  EXPECT_EQ(counting.releases, 1);
  EXPECT_EQ(counting.replays, 5);
  EXPECT_EQ(counting.steps, StepGraph::kStepsBefore + 5);
  EXPECT_TRUE(graph.replays() && graph.settled());
}

TEST(StepGraph, NothingIsCapturedWhileStepsLearn) {
  CountingDevice counting;
  counting.learns_until = 20;
  StepGraph graph = counting.graph();
  run(graph, 21);  // the last of which learned nothing
  EXPECT_EQ(counting.captures, 0);
  run(graph, 1);
  EXPECT_EQ(counting.captures, 1);
  EXPECT_EQ(counting.steps, 22);
}

TEST(StepGraph, AGraphIsGivenUpAfterManyReplaysAndAnotherFollows) {
  CountingDevice counting;
  StepGraph graph = counting.graph();
  run(graph, StepGraph::kStepsBefore + StepGraph::kMostReplays);
  EXPECT_TRUE(graph.replays());
  counting.learns_until = counting.steps + 7;  // what is fastest has changed
  run(graph, 8);
  EXPECT_FALSE(graph.replays());
  EXPECT_EQ(counting.replays, StepGraph::kMostReplays);
  EXPECT_EQ(counting.releases, 2);
  run(graph, 1);
  EXPECT_TRUE(graph.replays());
  EXPECT_EQ(counting.captures, 2);
  EXPECT_EQ(counting.steps, StepGraph::kStepsBefore + StepGraph::kMostReplays + 9);
}

TEST(StepGraph, OneThatIsForgottenFollowsAgain) {
  CountingDevice counting;
  StepGraph graph = counting.graph();
  graph.forget();
  run(graph, StepGraph::kStepsBefore + 2);
  graph.forget();
  graph.forget();
  EXPECT_FALSE(graph.replays());
  EXPECT_EQ(counting.releases, 2);  // before the capture, and after
  run(graph, StepGraph::kStepsBefore);
  EXPECT_EQ(counting.captures, 1);
  run(graph, 1);
  EXPECT_EQ(counting.captures, 2);
  EXPECT_EQ(counting.steps, 2 * StepGraph::kStepsBefore + 3);
}

TEST(StepGraph, WhatCannotBeCapturedRunsOnAndSaysWhyOnce) {
  for (const bool memory : {false, true}) {
    CountingDevice counting;
    GraphDevice device = counting.device();
    device.capture = [&](const std::function<void()>&) -> std::function<void()> {
      ++counting.captures;
      if (memory) TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory");
      throw Error("it waits for the host");
    };
    StepGraph graph([&] { ++counting.steps; }, device);
    run(graph, 20);
    EXPECT_EQ(counting.captures, 1);
    EXPECT_EQ(counting.steps, 20);
    EXPECT_EQ(counting.releases, 2);
    EXPECT_TRUE(graph.settled() && !graph.replays());
    EXPECT_NE(graph.failure().find(memory ? "memory" : "it waits for the host"), std::string::npos);
  }
}

}  // namespace
}  // namespace pararnn::train
