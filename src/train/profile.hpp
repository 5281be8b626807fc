// Where the time of a step goes: a few steps watched by LibTorch's profiler (Kineto), their time
// added up by part. On a GPU what is counted are its kernels and copies, on a CPU the operators
// that the host runs.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace pararnn::train {

/// The part in which nothing ran.
inline constexpr const char* kIdle = "idle";

/// What one step spends on a part, or on one kind of kernel, in the mean.
struct ProfiledTime {
  std::string name;
  double seconds = 0;
  double calls = 0;
};

struct Profile {
  int64_t steps = 0;
  double seconds = 0;                 // of a step, from its start to its end
  std::vector<ProfiledTime> parts;    // products, scan, fused, …; the last is kIdle
  std::vector<ProfiledTime> slowest;  // kernels, or operators of a CPU, by name, the slowest first

  /// A table of the parts, and one of the slowest kernels: lines for a terminal.
  std::string table() const;
  nlohmann::json json() const;
};

/// The part that a kernel of a GPU, or an operator of a CPU, belongs to by its name.
std::string part_of(const std::string& name);

/// Watches what runs from its start to its stop, in the thread that makes it. One at a time.
class Profiler {
 public:
  explicit Profiler(const torch::Device& device);
  /// Stops, and forgets what it saw.
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// Waits for the device, and tells where the time of the `steps` steps since the start went. The
  /// trace goes into `trace`, which Perfetto opens. Throws Error if it cannot be written.
  Profile stop(int64_t steps, const std::filesystem::path& trace);

 private:
  torch::Device device_;
  int64_t start_ns_;
  bool running_ = true;
};

/// Profiles a few steps of a run, after some in which caches fill, plans are learned and a graph is
/// captured.
class RunProfiler {
 public:
  static constexpr int64_t kStepsBefore = 20, kMostStepsBefore = 100, kSteps = 4;

  RunProfiler(const torch::Device& device, std::filesystem::path trace);
  /// Call before each step of the run, and after it; after the last one that is watched it returns
  /// what was seen. `settled`: steps are run as they will be from now on.
  void before_step(bool settled);
  std::optional<Profile> after_step();
  bool finished() const { return finished_; }

 private:
  torch::Device device_;
  std::filesystem::path trace_;
  int64_t steps_ = 0, watched_ = 0;
  bool finished_ = false;
  std::optional<Profiler> profiler_;
};

}  // namespace pararnn::train
