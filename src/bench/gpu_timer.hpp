// Time that work takes on a GPU, its caches flushed before.
#pragma once

#include <torch/types.h>

#include <functional>

#include "kernels/scan_options.hpp"
#include "ops/cuda_graph.hpp"

namespace pararnn::bench {

using Work = std::function<void()>;
using ops::capture_graph;

/// Runs it, and waits for it, until its kernels are compiled and its plan, if that is automatic,
/// has learned what it can.
void settle(const Work& run, const ScanOptions& options);

/// Whose time counts beside the device's.
enum class Host {
  kAhead,    // none: the host has launched the work before the device comes to it
  kIncluded  // the device is idle when the host begins to launch
};

/// Times work on the current stream.
class GpuTimer {
 public:
  GpuTimer();

  /// Median time of one call in microseconds, by events around it, each call after a flush of the
  /// L2 cache: over as many calls as a quarter of a second holds, at most 50. A call longer than
  /// that is measured once. `run` should have run before.
  double microseconds(const Work& run, Host host = Host::kAhead) const;

 private:
  void flush_caches() const;
  torch::Tensor buffer_;
};

/// Gigabytes per second, read and written together, of a copy from one half GiB to another.
double gpu_copy_bandwidth(const GpuTimer& timer);

}  // namespace pararnn::bench
