#include "train/profile.hpp"

#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/cuda.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <ranges>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

constexpr const char* kOther = "other";
constexpr size_t kSlowestKept = 40, kSlowestShown = 12;

struct Rule {
  std::string_view within;  // a name
  const char* part;
};

/// The first that applies. Kernels of products are those of cuBLAS (nvjet, cutlass, gemm, …).
constexpr std::array kRules{
    Rule{"adamw", "optimizer"},       Rule{"BlockDiagonalProduct", "products"},
    Rule{"pararnn::ops::", "fused"},  Rule{"pararnn::cuda::", "scan"},
    Rule{"pararnn::_scan", "scan"},   Rule{"ScanFunction", "scan"},
    Rule{"nccl", "communication"},    Rule{"c10d", "communication"},
    Rule{"gloo", "communication"},    Rule{"flash", "attention"},
    Rule{"fmha", "attention"},        Rule{"attention", "attention"},
    Rule{"sdpa", "attention"},        Rule{"multi_tensor", "optimizer"},
    Rule{"_foreach", "optimizer"},    Rule{"pararnn::", "fused"},
    Rule{"nvjet", "products"},        Rule{"gemm", "products"},
    Rule{"gemv", "products"},         Rule{"cutlass", "products"},
    Rule{"cublas", "products"},       Rule{"splitK", "products"},
    Rule{"aten::mm", "products"},     Rule{"aten::addmm", "products"},
    Rule{"aten::bmm", "products"},    Rule{"aten::baddbmm", "products"},
    Rule{"aten::linear", "products"}, Rule{"Memcpy", "copies"},
    Rule{"Memset", "copies"},
};

/// A name that fits a line: without what says nothing, and cut where it is too long.
std::string short_name(std::string name) {
  constexpr size_t kLongest = 72;
  for (const std::string_view noise :
       {"autograd::engine::evaluate_function: ", "torch::autograd::CppNode<",
        "(anonymous namespace)::", "void "}) {
    if (const size_t at = name.find(noise); at != std::string::npos) name.erase(at, noise.size());
  }
  if (name.size() > kLongest) name = name.substr(0, kLongest - 3) + "...";
  return name;
}

struct Interval {
  int64_t begin, end;
  std::string name;
};

/// Kernels and copies of a device.
std::vector<Interval> device_intervals(const profiler::ProfilerResult& result) {
  std::vector<Interval> intervals;
  for (const profiler::KinetoEvent& event : result.events()) {
    if (event.deviceType() == c10::DeviceType::CPU || event.isHiddenEvent()) continue;
    const auto begin = static_cast<int64_t>(event.startNs());
    intervals.push_back({begin, begin + static_cast<int64_t>(event.durationNs()), event.name()});
  }
  return intervals;
}

/// Operators of the host: of those within one another, the outermost that belongs to a part, and
/// otherwise the innermost.
std::vector<Interval> host_intervals(const profiler::ProfilerResult& result) {
  std::map<uint64_t, std::vector<Interval>> threads;
  for (const profiler::KinetoEvent& event : result.events()) {
    if (event.deviceType() != c10::DeviceType::CPU) continue;
    const auto begin = static_cast<int64_t>(event.startNs());
    threads[event.startThreadId()].push_back(
        {begin, begin + static_cast<int64_t>(event.durationNs()), event.name()});
  }
  std::vector<Interval> chosen;
  for (auto& [thread, intervals] : threads) {
    std::ranges::sort(intervals, [](const Interval& a, const Interval& b) {
      return std::pair(a.begin, -a.end) < std::pair(b.begin, -b.end);
    });
    int64_t covered = 0;  // up to here by an operator with a part
    for (size_t i = 0; i < intervals.size(); ++i) {
      const Interval& interval = intervals[i];
      if (interval.begin < covered) continue;
      const bool has_part = part_of(interval.name) != kOther;
      const bool has_inner = i + 1 < intervals.size() && intervals[i + 1].begin < interval.end;
      if (has_part) covered = interval.end;
      if (has_part || !has_inner) chosen.push_back(interval);
    }
  }
  return chosen;
}

int64_t nanoseconds_covered(std::vector<Interval> intervals) {
  std::ranges::sort(intervals, {}, &Interval::begin);
  int64_t covered = 0, end = 0;
  for (const Interval& interval : intervals) {
    covered += std::max<int64_t>(0, interval.end - std::max(interval.begin, end));
    end = std::max(end, interval.end);
  }
  return covered;
}

std::vector<ProfiledTime> slowest_first(const std::map<std::string, ProfiledTime>& times) {
  std::vector<ProfiledTime> sorted;
  for (const auto& [name, time] : times) sorted.push_back(time);
  std::ranges::stable_sort(sorted, std::greater{}, &ProfiledTime::seconds);
  return sorted;
}

void wait_for(const torch::Device& device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

std::set<ActivityType> activities_of(const torch::Device& device) {
  if (device.is_cuda()) return {ActivityType::CPU, ActivityType::CUDA};
  return {ActivityType::CPU};
}

nlohmann::json times_json(const std::vector<ProfiledTime>& times) {
  nlohmann::json json = nlohmann::json::array();
  for (const ProfiledTime& time : times) {
    json.push_back({{"name", time.name}, {"seconds", time.seconds}, {"calls", time.calls}});
  }
  return json;
}

}  // namespace

std::string part_of(const std::string& name) {
  for (const Rule& rule : kRules) {
    if (name.find(rule.within) != std::string::npos) return rule.part;
  }
  return kOther;
}

Profiler::Profiler(const torch::Device& device) : device_(device) {
  using torch::profiler::impl::ProfilerConfig;
  using torch::profiler::impl::ProfilerState;
  // On a machine without a GPU it would complain of that on the terminal.
  ::setenv("KINETO_LOG_LEVEL", "5", /*overwrite=*/0);
  const ProfilerConfig config(ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities_of(device));
  wait_for(device_);
  profiler::enableProfiler(
      config, activities_of(device),
      {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION, at::RecordScope::USER_SCOPE});
  start_ns_ = now_ns();
}

Profiler::~Profiler() {
  if (running_) profiler::disableProfiler();
}

Profile Profiler::stop(int64_t steps, const std::filesystem::path& trace) {
  wait_for(device_);
  const int64_t elapsed = now_ns() - start_ns_;
  const auto result = profiler::disableProfiler();
  running_ = false;
  result->save(trace.string());
  require(std::filesystem::exists(trace), "cannot write the trace {}", trace.string());

  const auto intervals = device_.is_cuda() ? device_intervals(*result) : host_intervals(*result);
  std::map<std::string, ProfiledTime> parts, names;
  for (const Interval& interval : intervals) {
    const double seconds =
        static_cast<double>(interval.end - interval.begin) * 1e-9 / static_cast<double>(steps);
    const auto add = [&](std::map<std::string, ProfiledTime>& times, const std::string& name) {
      ProfiledTime& time = times[name];
      time.name = name;
      time.seconds += seconds;
      time.calls += 1 / static_cast<double>(steps);
    };
    add(parts, part_of(interval.name));
    add(names, short_name(interval.name));
  }
  Profile profile{.steps = steps,
                  .seconds = static_cast<double>(elapsed) * 1e-9 / static_cast<double>(steps),
                  .parts = slowest_first(parts),
                  .slowest = slowest_first(names)};
  const double idle = static_cast<double>(elapsed - nanoseconds_covered(intervals)) * 1e-9;
  profile.parts.push_back({kIdle, std::max(0.0, idle) / static_cast<double>(steps), 0});
  if (profile.slowest.size() > kSlowestKept) profile.slowest.resize(kSlowestKept);
  return profile;
}

std::string Profile::table() const {
  std::string text = fmt::format("a step takes {:.2f} ms, the mean of {}:\n", seconds * 1e3, steps);
  const auto line = [&](const ProfiledTime& time) {
    text += fmt::format("{:>10.3f} ms {:>5.1f} % {:>7.1f} x  {}\n", time.seconds * 1e3,
                        100 * time.seconds / seconds, time.calls, time.name);
  };
  std::ranges::for_each(parts, line);
  text += "the slowest:\n";
  std::ranges::for_each(slowest | std::views::take(kSlowestShown), line);
  return text;
}

nlohmann::json Profile::json() const {
  return {{"steps", steps},
          {"seconds", seconds},
          {"parts", times_json(parts)},
          {"slowest", times_json(slowest)}};
}

RunProfiler::RunProfiler(const torch::Device& device, std::filesystem::path trace)
    : device_(device), trace_(std::move(trace)) {}

void RunProfiler::before_step(bool settled) {
  const bool due = steps_ >= kMostStepsBefore || (settled && steps_ >= kStepsBefore);
  if (due && !profiler_ && !finished_) profiler_.emplace(device_);
}

std::optional<Profile> RunProfiler::after_step() {
  ++steps_;
  if (!profiler_ || ++watched_ != kSteps) return std::nullopt;
  Profile profile = profiler_->stop(kSteps, trace_);
  profiler_.reset();
  finished_ = true;
  return profile;
}

}  // namespace pararnn::train
