#include "bench/gpu.hpp"

#include <ATen/cuda/CUDAContextLight.h>
#include <c10/core/StreamGuard.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "base/error.hpp"
#include "bench/baselines.hpp"
#include "bench/gpu_scan.hpp"
#include "bench/report.hpp"
#include "bench/tables.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;

constexpr BenchShape kModuleShape = {8, 2048, 2048};
constexpr BenchShape kLengths[] = {
    {1, 512, 2048}, {1, 2048, 2048}, {1, 8192, 2048}, {1, 32768, 2048}, {1, 131072, 2048}};
constexpr BenchShape kDecodeShapes[] = {{1, 1, 2048}, {4096, 1, 2048}};

struct NamedCase {
  std::string part, regime;
  CheckCase problem;
};

std::vector<NamedCase> cases_of(const BenchOptions& options) {
  std::vector<NamedCase> result;
  const auto add = [&](const char* part, const std::string& cell, const BenchShape& shape,
                       const std::string& regime, const std::string& dtype) {
    result.push_back({part, regime, case_of(cell, shape, regime, dtype, "cuda", options.scan)});
  };
  const auto asked_for = [&](const char* part) {
    return std::ranges::find(options.parts, part) != options.parts.end();
  };
  for (const std::string& cell : options.cells) {
    for (const BenchShape& shape : options.shapes) {
      for (const std::string& regime : options.regimes) {
        if (asked_for("scan")) add("scan", cell, shape, regime, options.dtype);
      }
    }
    for (const std::string& regime : options.regimes) {
      if (asked_for("module")) add("module", cell, kModuleShape, regime, "float32");
    }
  }
  for (const BenchShape& shape : kLengths) {
    for (const std::string& regime : options.regimes) {
      if (!asked_for("length") || regime == "hard") continue;
      const auto same = [&](const NamedCase& c) {
        return c.problem.cell == options.cells[0] && c.regime == regime &&
               c.problem.dtype == options.dtype && c.problem.batch == shape.batch &&
               c.problem.steps == shape.steps && c.problem.channels == shape.channels;
      };
      if (std::ranges::none_of(result, same)) {
        add("length", options.cells[0], shape, regime, options.dtype);
      }
    }
  }
  return result;
}

struct BaselineTimes {
  double forward, both;
};

/// Those of one number of steps are kept: many lengths begin with the same.
BaselineTimes time_baseline(const BaselineKind& kind, const CheckCase& c, int64_t steps,
                            const GpuTimer& timer) {
  static std::map<json, BaselineTimes> known;
  const json key = {kind.name, kind.of_cell ? c.cell : "", c.dtype, c.batch, steps, c.channels};
  if (const auto found = known.find(key); found != known.end()) return found->second;
  const Baseline baseline =
      kind.make(c.cell, {c.batch, steps, c.channels}, dtype_of(c.dtype), torch::kCUDA);
  const Work forward = [&] { baseline.forward(); }, both = [&] { baseline.forward_backward(); };
  both();
  const auto time = [&](const Work& run) {
    return timer.microseconds(kind.captured ? capture_graph(run) : run);
  };
  BaselineTimes result{};
  result.forward = time(forward);
  result.both = time(both);
  return known[key] = result;
}

/// Tries some steps first: a baseline that would take too long at full length is not tried there.
/// What grows linearly is then told from the time of these.
json measure_baseline(const BaselineKind& kind, const CheckCase& c, const GpuTimer& timer) {
  const int64_t sample = kind.growth == 1 ? 2048 : 8192;
  constexpr double kMostMicroseconds = 3e6;
  json result = {{"name", kind.name}, {"cell", kind.of_cell ? c.cell : ""},
                 {"dtype", c.dtype},  {"batch", c.batch},
                 {"steps", c.steps},  {"channels", c.channels}};
  try {
    int64_t steps = std::min(c.steps, sample);
    BaselineTimes times = time_baseline(kind, c, steps, timer);
    const double growth = std::pow(double(c.steps) / double(steps), kind.growth);
    const bool affordable = times.both * growth < kMostMicroseconds && c.steps <= kind.most_steps;
    if (steps < c.steps && affordable) {
      steps = c.steps;
      times = time_baseline(kind, c, steps, timer);
    } else if (steps < c.steps && kind.growth == 1) {
      result["measured_steps"] = steps;
      times = {times.forward * growth, times.both * growth};
    } else if (steps < c.steps) {
      result["skipped"] = fmt::format("it would take about {:.0f} s", times.both * growth / 1e6);
      return result;
    }
    result["forward_us"] = times.forward;
    result["forward_backward_us"] = times.both;
  } catch (const c10::OutOfMemoryError&) {
    result["skipped"] = "out of memory";
  } catch (const c10::Error& error) {
    const std::string why = error.what_without_backtrace();
    result["skipped"] = why.substr(0, why.find('\n'));
  } catch (const Error& error) {
    result["skipped"] = error.what();
  }
  return result;
}

void measure_baselines(const std::vector<NamedCase>& cases, const GpuTimer& timer, json& report,
                       const std::function<void()>& save) {
  print("\n");
  print(baseline_table_header());
  std::set<json> done;
  for (const NamedCase& c : cases) {
    for (const BaselineKind& kind : baseline_kinds()) {
      const CheckCase& p = c.problem;
      const json key = {kind.name, kind.of_cell ? p.cell : "", p.dtype, p.batch, p.steps,
                        p.channels};
      if (!done.insert(key).second) continue;
      report["baselines"].push_back(measure_baseline(kind, p, timer));
      c10::cuda::CUDACachingAllocator::emptyCache();
      print(baseline_table_row(report, report["baselines"].back()));
      save();
    }
  }
}

}  // namespace

json describe_gpu() {
  const cudaDeviceProp* device = at::cuda::getCurrentDeviceProperties();
  return {{"processor", device->name},
          {"multiprocessors", device->multiProcessorCount},
          {"l2_megabytes", double(device->l2CacheSize) / (1 << 20)},
          {"memory_gigabytes", std::round(double(device->totalGlobalMem) / 1e9)},
          {"libtorch", TORCH_VERSION}};
}

json bench_on_gpu(const BenchOptions& options) {
  require(torch::cuda::is_available(),
          "there is no GPU that LibTorch can use here; pararnn bench --device cpu times the engine "
          "on the processor");
  // Graphs are captured on streams of their own; one stream for everything needs no waiting.
  const c10::StreamGuard stream(c10::cuda::getStreamFromPool());
  const GpuTimer timer;
  const torch::Tensor one = torch::zeros({1}, torch::device(torch::kCUDA));
  const double bandwidth = gpu_copy_bandwidth(timer);
  const Work next_to_nothing = [&] { torch::Tensor(one).add_(1); };
  next_to_nothing();
  json report = {{"device", "cuda"},
                 {"machine", describe_gpu()},
                 {"dtype", options.dtype},
                 {"copy_gigabytes_per_second", bandwidth},
                 {"empty_graph_us", timer.microseconds(capture_graph(next_to_nothing))},
                 {"results", json::array()},
                 {"decode", json::array()},
                 {"baselines", json::array()}};
  const auto save = [&] {
    if (!options.json_file.empty()) write_report(options.json_file, report);
  };
  const std::vector<NamedCase> cases = cases_of(options);
  print(machine_line(report));
  if (!cases.empty()) print(gpu_table_header());
  for (const NamedCase& c : cases) {
    json result = measure_scan(c.problem, c.regime, timer, bandwidth);
    c10::cuda::CUDACachingAllocator::emptyCache();
    result["part"] = c.part;
    print(gpu_table_row(result));
    report["results"].push_back(result);
    save();
  }
  if (std::ranges::find(options.parts, "decode") != options.parts.end()) {
    print("\n");
    print(decode_table_header());
    for (const std::string& cell : options.cells) {
      for (const BenchShape& shape : kDecodeShapes) {
        report["decode"].push_back(
            measure_step(cell, shape.batch, shape.channels, options.dtype, timer));
        print(decode_table_row(report["decode"].back()));
        save();
      }
    }
  }
  if (options.baselines && !cases.empty()) measure_baselines(cases, timer, report, save);
  return report;
}

std::vector<std::string> wrong_results(const json& report) {
  std::vector<std::string> result;
  for (const char* list : {"results", "decode"}) {
    if (!report.contains(list)) continue;
    for (const json& measurement : report.at(list)) {
      if (measurement.contains("wrong")) result.push_back(measurement.at("wrong"));
    }
  }
  return result;
}

}  // namespace pararnn::bench
