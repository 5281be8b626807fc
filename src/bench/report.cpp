#include "bench/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "bench/first_use.hpp"
#include "bench/generation.hpp"
#include "bench/operators.hpp"
#include "bench/plot.hpp"
#include "bench/sequences.hpp"
#include "bench/tables.hpp"
#include "bench/train.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;

bool is_of_gpu(const json& report) { return report.value("device", "cpu") == "cuda"; }

json read_report(const std::string& path) {
  std::ifstream file(path);
  require(bool(file), "cannot read '{}'", path);
  json report = json::parse(file, nullptr, /*allow_exceptions=*/false);
  require(report.is_object() && report.contains("results") && report.contains("machine"),
          "'{}' is not a report of pararnn bench --json", path);
  return report;
}

/// What a measurement is of.
std::string identity(const json& measurement) {
  std::string result;
  for (const char* key :
       {"part", "name", "cell", "dtype", "batch", "steps", "channels", "regime", "from_the_cache",
        "mean_length", "size", "model", "mixer", "precision", "context"}) {
    result += (measurement.contains(key) ? measurement.at(key).dump() : "") + " ";
  }
  return result;
}

void merge(json& into, const json& more) {
  for (const json& measurement : more) {
    bool found = false;
    for (json& known : into) {
      if (identity(known) != identity(measurement)) continue;
      known = measurement;
      found = true;
    }
    if (!found) into.push_back(measurement);
  }
}

/// Measurements of one kind, if there are any.
json list(const json& report, const char* kind) { return report.value(kind, json::array()); }

std::string first_use_table(const json& report) {
  std::string rows;
  for (const json& r : list(report, "first_use")) rows += first_use_table_row(r);
  return rows.empty() ? "" : "## First use of a cell\n\n" + first_use_table_header() + rows + "\n";
}

std::string generation_table(const json& report) {
  std::string rows;
  for (const json& r : list(report, "generation")) rows += generation_table_row(r);
  return rows.empty() ? "" : "## Generation\n\n" + generation_table_header() + rows + "\n";
}

std::string sequences_table(const json& report) {
  std::string rows;
  for (const json& r : list(report, "sequences")) rows += sequences_table_row(r);
  return rows.empty() ? ""
                      : "## Sequences packed in one row\n\nBeside the same steps as one sequence; "
                        "lengths are uniform from 1 to twice the mean.\n\n" +
                            sequences_table_header() + rows + "\n";
}

std::string operators_table(const json& report) {
  std::string rows;
  for (const json& r : list(report, "operators")) rows += operators_table_row(r);
  return rows.empty() ? ""
                      : "## What stands between the products of a language model\n\nThe roof is "
                        "the time in which a copy moves what an operator must read and write.\n\n" +
                            operators_table_header() + rows + "\n";
}

std::string training_table(const json& report) {
  std::string rows;
  for (const json& r : list(report, "training")) rows += training_table_row(r);
  return rows.empty()
             ? ""
             : "## Training language models\n\nOf the peak: six operations a parameter and "
               "token, the embedding's too, and those of the mixers, of the GPU's dense bfloat16 "
               "arithmetic.\n\n" +
                   training_table_header() + rows + "\n";
}

std::string gpu_tables(const json& report) {
  std::string scans, modules, decode, baselines;
  for (const json& r : report.at("results")) {
    const std::string part = r.at("part");
    if (part == "scan") scans += gpu_table_row(r);
    if (part == "module") modules += module_table_row(report, r);
  }
  for (const json& r : list(report, "decode")) decode += decode_table_row(r);
  for (const json& b : list(report, "baselines")) baselines += baseline_table_row(report, b);
  std::string result;
  if (!scans.empty()) result += "## The scan\n\n" + gpu_table_header() + scans + "\n";
  if (!modules.empty()) {
    result += "## The operator with autograd, the host's time included\n\n" +
              module_table_header() + modules + "\n";
  }
  if (!decode.empty()) result += "## One step\n\n" + decode_table_header() + decode + "\n";
  if (!baselines.empty()) {
    result += "## Beside others\n\n" + baseline_table_header() + baselines + "\n";
  }
  return result + sequences_table(report) + operators_table(report) + training_table(report) +
         generation_table(report) + first_use_table(report);
}

constexpr const char* kGpuText =
    R"(Medians of calls, the L2 cache flushed before each (a buffer of eight times its size is written, then read); each
result is validated before it is timed. Times are the device's, from replays of a CUDA graph. The roof is the time in
which a copy moves the inputs and outputs once; the plan's chunks stand in brackets; *corrected* is the share of
columns that a Newton correction changed. The forward pass is that of inference; the one of training also writes
checkpoints. *Memory* and *hard* are what trained gates come to; a target names the most times the roof that the
forward and the backward pass should take.

Beside others: the loop of ops runs in the same dtype, state included; cuDNN's layer is dense, its input projection
included; attention is causal in heads of 128 channels; SSD (Mamba2's linear recurrence, 128 state components, heads of
64) is written in LibTorch operations. Attention, SSD and the captured loop run from CUDA graphs, the loop and cuDNN as
the host launches them. The last columns are times those of the engine at *forgetting*.

)";

}  // namespace

void print(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

void write_report(const std::string& path, const json& report) {
  write_file(path, report.dump(2) + "\n");
}

json read_reports(const std::vector<std::string>& paths) {
  json result = read_report(paths.at(0));
  for (size_t i = 1; i < paths.size(); ++i) {
    const json more = read_report(paths[i]);
    require(more.at("machine") == result.at("machine"),
            "'{}' and '{}' are of different machines; reports of one machine can be put together",
            paths[0], paths[i]);
    for (const char* list : {"results", "decode", "baselines", "sequences", "operators", "training",
                             "generation", "first_use"}) {
      if (more.contains(list)) merge(result[list], more.at(list));
    }
  }
  return result;
}

std::string markdown_of(const json& report, const std::string& path, const std::string& plot) {
  if (is_of_gpu(report)) {
    std::string result = fmt::format(
        "# Benchmarks on a GPU\n\nWritten by `pararnn bench --device cuda --json "
        "benchmarks-gpu.json --markdown {}{}`.\n{}",
        path, plot.empty() ? "" : " --plot " + plot, kGpuText);
    result += machine_line(report);
    if (!plot.empty()) {
      // Pictures are found from the document's folder.
      const auto folder = std::filesystem::path(path).parent_path();
      result += fmt::format("![Time against steps]({})\n\n",
                            std::filesystem::path(plot).lexically_relative(folder).string());
    }
    return result + gpu_tables(report);
  }
  std::string result = "# Benchmarks\n\n";
  if (!report.at("results").empty()) {
    result += fmt::format(
        "Written by `pararnn bench --device cpu --markdown {}`. Medians, each result validated "
        "before it is timed;\n`pararnn bench --help` says what the loops and the regimes are.\nA "
        "ratio above 1× is how many times faster the engine is; the number in brackets behind a "
        "plan is its chunks.\n\n",
        path);
  }
  result += machine_line(report);
  if (!report.at("results").empty()) {
    result += cpu_table_header();
    for (const json& r : report.at("results")) result += cpu_table_row(r);
  }
  const std::string others = sequences_table(report) + training_table(report) +
                             generation_table(report) + first_use_table(report);
  return others.empty() ? result : result + "\n" + others;
}

std::string time_against_steps_svg(const json& report) {
  require(is_of_gpu(report), "a plot of time against steps needs a report of --device cuda");
  const auto family = [](const json& r) {
    return json{r.at("cell"), r.at("dtype"), r.at("batch"), r.at("channels")};
  };
  std::map<json, std::set<int64_t>> lengths;
  for (const json& r : report.at("results")) {
    if (r.contains("forward")) lengths[family(r)].insert(r.at("steps").get<int64_t>());
  }
  require(!lengths.empty(), "the report has no times of the engine to plot");
  const json shown = std::ranges::max_element(lengths, {}, [](const auto& entry) {
                       return entry.second.size();
                     })->first;
  const std::string cell = shown[0];

  // In the order in which they come; of a length that was measured twice, the last.
  std::vector<std::string> names;
  std::map<std::string, std::map<int64_t, PlotPoint>> points;
  const auto add = [&](const std::string& name, int64_t steps, double microseconds,
                       bool extrapolated) {
    if (!points.count(name)) names.push_back(name);
    points[name][steps] = {double(steps), microseconds / 1e3, extrapolated};
  };
  for (const json& r : report.at("results")) {
    if (family(r) != shown || !r.contains("forward")) continue;
    const double both =
        r.at("training_forward").at("us").get<double>() + r.at("backward").at("us").get<double>();
    add(fmt::format("{}, {}", cell, r.at("regime").get<std::string>()), r.at("steps"), both, false);
  }
  for (const json& b : list(report, "baselines")) {
    json same = family(b);
    if (b.at("cell") == "") same[0] = cell;
    if (same != shown || !b.contains("forward_backward_us")) continue;
    add(b.at("name"), b.at("steps"), b.at("forward_backward_us"), b.contains("measured_steps"));
  }
  Plot plot{fmt::format("Forward and backward, B{} D{}, {}; {}", shown[2].get<int64_t>(),
                        shown[3].get<int64_t>(), shown[1].get<std::string>(),
                        report.at("machine").at("processor").get<std::string>()),
            "steps",
            "ms",
            {}};
  for (const std::string& name : names) {
    plot.series.push_back({name, {}});
    for (const auto& [steps, point] : points[name]) plot.series.back().points.push_back(point);
  }
  return plot_svg(plot);
}

}  // namespace pararnn::bench
