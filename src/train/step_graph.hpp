// A step that is the same work each time, on tensors that stay where they are: run as it is while
// there is something to learn from that, then captured once as a graph and replayed, which spares
// the host its part.
//
// What is learned in steps that run (which plan of a scan is the fastest) is fixed in a graph. So a
// graph is given up after some hundred replays, and a few steps run before the next is captured.
// Pure logic: what a graph is says GraphDevice.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace pararnn::train {

/// What graphs are made with; nothing that a step allocates in a capture outlives its graph.
struct GraphDevice {
  /// ops::capture_graph; empty where there are no graphs.
  std::function<std::function<void()>(const std::function<void()>&)> capture = {};
  /// Grows as long as steps still learn; see calls_that_explored().
  std::function<int64_t()> explored = [] { return 0; };
  /// Called before each replay.
  std::function<void()> on_replay = [] {};
  /// Gives memory back that is cached: before a capture that of steps, which a graph cannot use,
  /// and after a graph that of the graph.
  std::function<void()> release_memory = [] {};
};

class StepGraph {
 public:
  /// Steps that run before a capture: of what is timed in the first, the third knows the time, as
  /// the host is a step ahead.
  static constexpr int64_t kStepsBefore = 3;
  static constexpr int64_t kMostReplays = 1000;

  StepGraph(std::function<void()> step, GraphDevice device);

  /// The step once, in one way or the other.
  void run();

  /// Whether there is a graph.
  bool replays() const { return replay_ != nullptr; }
  /// Whether steps are run as they will be from now on: as a graph, where there can be one.
  bool settled() const { return replays() || (!device_.capture && !learns_); }
  /// Why there is no graph though there could be one, in a few words; empty otherwise.
  const std::string& failure() const { return failure_; }

  /// Gives the graph up with its memory; another one follows in a few steps.
  void forget();

 private:
  void capture();

  std::function<void()> step_;
  GraphDevice device_;
  std::function<void()> replay_;
  int64_t steps_ = 0, replays_ = 0;  // since the graph before, and of this one
  bool learns_ = true;               // as the last step did
  std::string failure_;
};

}  // namespace pararnn::train
