#include "bench/gpu_timer.hpp"

#include <ATen/cuda/CUDAContextLight.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/cuda.h>

#include <algorithm>
#include <vector>

namespace pararnn::bench {

void settle(const Work& run, const ScanOptions& options) {
  // An automatic plan learns from the first calls at a place, some forty of them.
  for (int i = 0; i < (options.plan == "auto" ? 48 : 2); ++i) {
    run();
    torch::cuda::synchronize();
  }
}

GpuTimer::GpuTimer()
    : buffer_(torch::zeros({8 * int64_t(at::cuda::getCurrentDeviceProperties()->l2CacheSize) / 4},
                           torch::dtype(torch::kFloat32).device(torch::kCUDA))) {}

/// Writes a buffer of eight times the cache, and reads it: after the write alone the cache is full
/// of lines that the timed call would have to write back. It takes longer than the host needs to
/// launch a call.
void GpuTimer::flush_caches() const {
  torch::NoGradGuard no_grad;
  torch::Tensor(buffer_).zero_();
  buffer_.sum();
}

double GpuTimer::microseconds(const Work& run, Host host) const {
  constexpr double kMostMicroseconds = 2.5e5;
  const c10::Stream stream = c10::cuda::getCurrentCUDAStream();
  const auto time_calls = [&](int count) {
    struct Interval {
      c10::Event start{c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT};
      c10::Event end{c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT};
    };
    std::vector<Interval> intervals(count);
    for (Interval& interval : intervals) {
      flush_caches();
      if (host == Host::kIncluded) torch::cuda::synchronize();
      interval.start.record(stream);
      run();
      interval.end.record(stream);
    }
    torch::cuda::synchronize();
    std::vector<double> times;
    for (const Interval& interval : intervals) {
      times.push_back(1e3 * interval.start.elapsedTime(interval.end));
    }
    return times;
  };
  const double first = time_calls(1).front();
  if (first >= kMostMicroseconds) return first;
  const int count = std::clamp(int(kMostMicroseconds / std::max(first, 1.0)), 1, 50);
  std::vector<double> times = time_calls(count);
  std::nth_element(times.begin(), times.begin() + count / 2, times.end());
  return times[count / 2];
}

double gpu_copy_bandwidth(const GpuTimer& timer) {
  const torch::Tensor from =
      torch::ones({int64_t(128) << 20}, torch::dtype(torch::kFloat32).device(torch::kCUDA));
  const torch::Tensor to = torch::empty_like(from);
  const double microseconds = timer.microseconds([&] { torch::Tensor(to).copy_(from); });
  return 2 * double(from.nbytes()) / microseconds / 1e3;
}

}  // namespace pararnn::bench
