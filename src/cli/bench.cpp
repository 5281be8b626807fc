#include "cli/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/bench_measure.hpp"
#include "cli/common_options.hpp"
#include "pararnn/cells.hpp"

namespace pararnn::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::vector<std::string> cells = {"gru", "lstm"},
                           shapes = {"8x1024x512", "1x16384x64", "1x4096x8"};
  std::string dtype = "float32", device = "cpu", plan = "auto";
  std::string json_file, markdown_file, from_file;
  bool torch_loop = true;
};

struct Regime {
  const char* name;
  double weight_scale, gate_bias;
};
constexpr Regime kRegimes[] = {{"forgetting", 1, 0}, {"memory", 1, -4}, {"hard", 4, -4}};

constexpr const char* kExplanation = R"(
Each result is validated as `pararnn check` does before it is timed. Times are
medians. In the same run, on float32 numbers:
  scalar loop      the plain loop, one thread, compiled with -O3
  vectorised loop  the same over channels by the compiler, with the C library's
                   vector functions and relaxed arithmetic, one thread
  loop of ops      a loop over steps of LibTorch operations with autograd, forward
                   and backward, measured once for each cell and shape
  roof             the time in which a copy moves the same bytes
Regimes: forgetting (weights ±1, gate bias 0), memory (±1, -4), hard (±4, -4).)";

std::array<int64_t, 3> parse_shape(const std::string& text) {
  std::array<int64_t, 3> shape{};
  int end = 0;
  const int count =
      std::sscanf(text.c_str(), "%ldx%ldx%ld%n", &shape[0], &shape[1], &shape[2], &end);
  require(count == 3 && size_t(end) == text.size() && *std::ranges::min_element(shape) > 0,
          "the shape '{}' should be batch x steps x channels, as 8x1024x512", text);
  return shape;
}

std::string milliseconds(double ms) {
  return ms < 10 ? fmt::format("{:.2f}", ms) : fmt::format("{:.0f}", ms);
}

std::string times(const json& r, const char* slow, const char* fast) {
  if (!r.contains(slow)) return "";
  const double ratio = r.at(slow).get<double>() / r.at(fast).get<double>();
  return ratio < 10 ? fmt::format("{:.1f}×", ratio) : fmt::format("{:.0f}×", ratio);
}

void print_header(std::FILE* to) {
  fmt::print(
      to,
      "| cell | shape | regime | plan | forward, ms | against the scalar loop | against the "
      "vectorised loop | of the roof | forward + backward, ms | against the loop of ops | of "
      "the roof |\n|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
}

void print_row(std::FILE* to, const json& r) {
  const auto roof = [&](const char* roof_ms, const char* ms) {
    return fmt::format("{:.0f} %", 100 * r.at(roof_ms).get<double>() / r.at(ms).get<double>());
  };
  const auto text = [&](const char* key) { return r.at(key).get<std::string>(); };
  fmt::print(to, "| {} | B{} T{} D{} | {} | {} ({}) | {} | {} | {} | {} | {} | {} | {} |\n",
             text("cell"), r.at("batch").get<int64_t>(), r.at("steps").get<int64_t>(),
             r.at("channels").get<int64_t>(), text("regime"), text("plan"),
             r.at("chunks").get<int64_t>(), milliseconds(r.at("forward_ms").get<double>()),
             times(r, "scalar_loop_ms", "forward_ms"), times(r, "vectorized_loop_ms", "forward_ms"),
             roof("forward_roof_ms", "forward_ms"),
             milliseconds(r.at("forward_backward_ms").get<double>()),
             times(r, "torch_loop_forward_backward_ms", "forward_backward_ms"),
             roof("forward_backward_roof_ms", "forward_backward_ms"));
  std::fflush(to);
}

void print_machine(std::FILE* to, const json& report) {
  const json& m = report.at("machine");
  fmt::print(to, "{}, {} cores, {} threads, {}; {}; {}; a copy moves {:.1f} GB/s.\n\n",
             m.at("processor").get<std::string>(), m.at("cores").get<int>(),
             m.at("threads").get<int>(), m.at("instruction_set").get<std::string>(),
             m.at("compiler").get<std::string>(), report.at("dtype").get<std::string>(),
             report.at("copy_gigabytes_per_second").get<double>());
}

/// docs/benchmarks.md.
void write_markdown(const std::string& path, const json& report) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  require(file != nullptr, "cannot write '{}'", path);
  fmt::print(file,
             "# Benchmarks\n\nWritten by `pararnn bench --device cpu --markdown {}`. {}\n"
             "A ratio above 1× is how many times faster the engine is; the number in brackets "
             "behind a plan is its chunks.\n\n",
             path,
             "Medians, each result validated before it is timed;\n`pararnn bench --help` "
             "says what the loops and the regimes are.");
  print_machine(file, report);
  print_header(file);
  for (const json& result : report.at("results")) print_row(file, result);
  require(std::fclose(file) == 0, "cannot write '{}'", path);
}

void write_json(const std::string& path, const json& report) {
  std::ofstream file(path);
  file << report.dump(2) << "\n";
  file.close();
  require(bool(file), "cannot write '{}'", path);
}

json read_json(const std::string& path) {
  std::ifstream file(path);
  require(bool(file), "cannot read '{}'", path);
  json report = json::parse(file, nullptr, /*allow_exceptions=*/false);
  require(report.is_object() && report.contains("results"),
          "'{}' is not a report of pararnn bench --json", path);
  return report;
}

json run_benchmarks(const Arguments& arguments) {
  std::vector<std::array<int64_t, 3>> shapes;
  for (const std::string& shape : arguments.shapes) shapes.push_back(parse_shape(shape));
  json report = {{"machine", describe_machine()},
                 {"dtype", arguments.dtype},
                 {"copy_gigabytes_per_second", copy_bandwidth()},
                 {"results", json::array()}};
  print_machine(stdout, report);
  print_header(stdout);
  std::map<std::string, double> torch_loops;
  for (const std::string& cell : arguments.cells) {
    for (const auto& [batch, steps, channels] : shapes) {
      for (const Regime& regime : kRegimes) {
        CheckCase problem{cell,
                          batch,
                          steps,
                          channels,
                          regime.weight_scale,
                          regime.gate_bias,
                          arguments.dtype,
                          arguments.device,
                          0,
                          {}};
        problem.options.plan = arguments.plan;
        report["results"].push_back(measure(problem, regime.name,
                                            report["copy_gigabytes_per_second"], torch_loops,
                                            arguments.torch_loop));
        print_row(stdout, report["results"].back());
      }
    }
  }
  return report;
}

}  // namespace

void add_bench_command(CLI::App& program) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = program.add_subcommand(
      "bench", "Time the engine against the step-by-step loops on this machine");
  command->footer(kExplanation);
  std::vector<std::string> names;
  for (const CellInfo& cell : cell_registry()) names.emplace_back(cell.name);
  command->add_option("--device", arguments->device, "where to run")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu"}));
  command->add_option("--cell", arguments->cells, "cells")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::IsMember(names));
  command->add_option("--shape", arguments->shapes, "shapes, batch x steps x channels")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "dtype of the tensors")
      ->capture_default_str()
      ->check(CLI::IsMember({"float16", "bfloat16", "float32", "float64"}));
  command->add_option("--plan", arguments->plan, "how the sequence is cut")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "sequential", "speculative", "newton"}));
  command->add_flag("!--no-torch-loop", arguments->torch_loop,
                    "leave out the loop of ops, which takes most of the time");
  add_threads_option(*command);
  command->add_option("--json", arguments->json_file, "write the measurements to this file");
  command->add_option("--markdown", arguments->markdown_file, "write the table to this file");
  command->add_option("--from", arguments->from_file,
                      "measure nothing; take what an earlier --json has written");
  command->callback([arguments] {
    const json report =
        arguments->from_file.empty() ? run_benchmarks(*arguments) : read_json(arguments->from_file);
    if (!arguments->json_file.empty()) write_json(arguments->json_file, report);
    if (!arguments->markdown_file.empty()) write_markdown(arguments->markdown_file, report);
  });
}

}  // namespace pararnn::cli
