#include "train/step_graph.hpp"

#include <c10/util/Exception.h>

#include <utility>

#include "base/error.hpp"

namespace pararnn::train {

StepGraph::StepGraph(std::function<void()> step, GraphDevice device)
    : step_(std::move(step)), device_(std::move(device)) {}

void StepGraph::run() {
  if (replays_ == kMostReplays) forget();
  if (!replay_ && device_.capture && steps_ >= kStepsBefore && !learns_) capture();
  if (replay_) {
    ++replays_;
    device_.on_replay();
    replay_();
    return;
  }
  const int64_t before = device_.explored();
  step_();
  ++steps_;
  learns_ = device_.explored() != before;
}

void StepGraph::capture() {
  device_.release_memory();
  try {
    replay_ = device_.capture(step_);
    return;
  } catch (const c10::OutOfMemoryError&) {
    failure_ = "a graph needs more memory than is left";
  } catch (const Error& error) {
    failure_ = error.what();
  }
  device_.capture = nullptr;
  device_.release_memory();
}

void StepGraph::forget() {
  if (!replay_) return;
  replay_ = nullptr;
  steps_ = replays_ = 0;
  device_.release_memory();
}

}  // namespace pararnn::train
