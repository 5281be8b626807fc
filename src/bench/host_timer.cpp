#include "bench/host_timer.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pararnn::bench {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median_milliseconds(const std::function<void()>& run, int fewest, double seconds) {
  using Clock = std::chrono::steady_clock;
  run();
  std::vector<double> times;
  const auto start = Clock::now();
  while (int(times.size()) < fewest || (seconds_since(start) < seconds && times.size() < 1000)) {
    const auto before = Clock::now();
    run();
    times.push_back(1e3 * seconds_since(before));
  }
  std::nth_element(times.begin(), times.begin() + std::ptrdiff_t(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace pararnn::bench
