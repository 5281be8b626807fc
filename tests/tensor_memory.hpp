// What tensors on the CPU take, counted exactly.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace pararnn {

/// Counts what tensors on the CPU take while it is in scope.
class PeakOfTensors : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    bytes_ += size;
    peak_ = std::max(peak_, bytes_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  double now() const { return static_cast<double>(bytes_); }
  double peak() const { return static_cast<double>(peak_); }

  /// The peak while `action` runs.
  template <class Action>
  static double of(Action action) {
    const auto counter = std::make_shared<PeakOfTensors>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
    action();
    return counter->peak();
  }

 private:
  int64_t bytes_ = 0, peak_ = 0;
};

}  // namespace pararnn
