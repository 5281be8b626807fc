#include "train/device_memory.hpp"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace pararnn::train {
namespace {

namespace fs = std::filesystem;

/// Of what LibTorch counts of its allocations on a GPU: all of them.
constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

/// The number behind `key` in lines "key number", as /proc/meminfo and memory.stat have them; or
/// `otherwise`.
double number_in(const fs::path& file, const std::string& key, double otherwise) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    double value = 0;
    if (words >> name && name == key && words >> value) return value;
  }
  return otherwise;
}

/// The number that is all of a file, or `otherwise`: without a file, and for the word "max".
double number_of(const fs::path& file, double otherwise) {
  std::ifstream text(file);
  double value = 0;
  return text >> value ? value : otherwise;
}

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

/// What the control group `group` and those above it leave. Files of the second version of control
/// groups, or of the first.
double left_by_groups(const fs::path& root, const fs::path& group, bool second) {
  double least = kUnlimited;
  for (fs::path folder = root / group.relative_path();; folder = folder.parent_path()) {
    const double limit =
        number_of(folder / (second ? "memory.max" : "memory.limit_in_bytes"), kUnlimited);
    const double used =
        number_of(folder / (second ? "memory.current" : "memory.usage_in_bytes"), 0);
    const std::string prefix = second ? "" : "total_";
    const fs::path statistics = folder / "memory.stat";
    const double files = number_in(statistics, prefix + "active_file", 0) +
                         number_in(statistics, prefix + "inactive_file", 0);
    least = std::min(least, limit - std::max(used - files, 0.0));
    if (folder == root || !folder.has_relative_path()) break;
  }
  return least;
}

}  // namespace

double available_host_memory(const fs::path& proc, const fs::path& control_groups) {
  constexpr double kKibibyte = 1024;
  const fs::path memory = proc / "meminfo";
  double available = number_in(memory, "MemAvailable:", kUnlimited) * kKibibyte;
  std::ifstream groups(proc / "self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "4:memory:/group", or "0::/group"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {
      available = std::min(available, left_by_groups(control_groups, group, true));
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      available = std::min(available, left_by_groups(control_groups / "memory", group, false));
    }
  }
  return available + number_in(memory, "SwapFree:", 0) * kKibibyte;
}

double available_memory(const torch::Device& device) {
  if (!device.is_cuda()) return available_host_memory("/proc", "/sys/fs/cgroup");
  const c10::cuda::CUDAGuard guard(device);
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return kUnlimited;
  // What LibTorch keeps for tensors to come is free too.
  double kept = 0;
  if (c10::cuda::CUDACachingAllocator::get()->initialized()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
    kept = double(stats.reserved_bytes[kAll].current) - double(stats.allocated_bytes[kAll].current);
  }
  return double(free) + kept;
}

double peak_memory(const torch::Device& device) {
  if (!device.is_cuda()) return 0;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return double(stats.allocated_bytes[kAll].peak);
}

void reset_peak_memory(const torch::Device& device) {
  if (!device.is_cuda() || !c10::cuda::CUDACachingAllocator::get()->initialized()) return;
  c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
}

void release_cached_memory(const torch::Device& device) {
  if (!device.is_cuda()) return;
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::CUDACachingAllocator::emptyCache();
}

}  // namespace pararnn::train
