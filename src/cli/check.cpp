#include "cli/check.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "cli/common_options.hpp"
#include "train/device.hpp"
#include "train/memory.hpp"
#include "verdict/check_case.hpp"

namespace pararnn::cli {
namespace {

constexpr const char* kCriterion = R"(
What is compared, and with what. Inputs, initial state and incoming gradients are
random; B is added to the first input of each channel, an update or forget gate.
The plain loop runs in float64. A chaotic recurrence (weights beyond 2 or so)
amplifies a rounding a millionfold in any arithmetic, so no fixed tolerance can
tell right from wrong. Each number is held against the most that it may be off:
the rounding of every step in the arithmetic of the dtype, and the tolerance at
every chunk boundary, carried on by the Jacobians.
  from the loop   y, hT, du, dw, dh0 against the loop's. Where the bound on y has
                  grown beyond 0.01, y is unpredictable, and the output says so.
  step by step    the same against one step of the loop from the result's own
                  states, gradients along those. Nothing has room to grow: strict
                  at any weights, until a gradient is too large for the dtype.
  boundary        the jump of the state where a chunk begins: the tolerance.
bfloat16 and float16 results must be the rounding of what float32 tensors with
the same numbers give, or of other numbers within the bounds. Exit status 1 if anything is beyond its bound.)";

const std::vector<std::string> kPlans = {"sequential", "speculative", "newton", "auto"};
const std::vector<std::string> kDtypes = {"float32", "float64", "bfloat16", "float16"};

std::string title(const CheckCase& c) {
  return fmt::format("{}  B{} T{} D{}  weights ±{:g}  gate bias {:g}  {}  {}  seed {}  plan {}",
                     c.cell, c.batch, c.steps, c.channels, c.weight_scale, c.gate_bias, c.dtype,
                     c.device, c.seed, c.options.plan);
}

void print(const char* pass, const ScanStatistics& s) {
  fmt::print(
      "{:<9} {}: {} chunk{} of {} steps, burn-in {}; mismatch {:.1e}, Newton iterations {}, "
      "columns {}, corrected {}, repaired {}\n",
      pass, s.plan.empty() ? "nothing to do" : s.plan, s.chunks, s.chunks == 1 ? "" : "s", s.chunk,
      s.burn_in, s.largest_mismatch, s.newton_iterations, s.columns, s.columns_corrected,
      s.columns_repaired);
}

void print(const CheckCase& check, const CheckReport& report) {
  fmt::print("{}\n", title(check));
  print("forward", report.forward);
  print("backward", report.backward);
  const auto line = [](const char* name, const Deviation& d) {
    fmt::print("  {:<14} {:>9.1e}  {:>6.3f} of the permitted{}\n", name, d.error, d.of_permitted,
               d.of_permitted <= 1 ? "" : "  <-- wrong");
  };
  for (size_t i = 0; i < kResultNames.size(); ++i) line(kResultNames[i], report.from_loop[i]);
  line("step residual", report.step);
  for (size_t i = 2; i < kResultNames.size(); ++i) {
    line(fmt::format("{} residual", kResultNames[i]).c_str(), report.from_trajectory[i]);
  }
  line("boundary", report.boundary);
  if (report.loop_error > 0) {
    fmt::print("The plain loop in float32 has y off by {:.1e}.\n", report.loop_error);
  }
  if (report.predictable < 1) {
    fmt::print("{:.1f} % of y are unpredictable in this arithmetic: judged step by step alone.\n",
               100 * (1 - report.predictable));
  }
  if (!report.rounded_right) {
    fmt::print("The {} result is not the rounding of a result within the bounds  <-- wrong\n",
               check.dtype);
  }
  fmt::print("{}\n", report.passed() ? "PASS" : "FAIL");
}

/// run_check where there is memory for it: on a GPU for the tensors, on the host for the numbers in
/// float64 of problem and results, and twice for what is expected with its bounds.
CheckReport check_within_memory(const CheckCase& check) {
  const torch::Device device(check.device);
  const auto memory = [&](double bytes) {
    return train::scan_memory(check.cell, check.batch, check.steps, check.channels, bytes);
  };
  constexpr double kTensor = 2, kNumbers = 24;
  train::require_memory(memory(kNumbers), torch::kCPU);
  CheckReport report;
  train::run_within_memory(memory(kTensor), device, [&] { report = run_check(check); });
  return report;
}

/// All weights, gate biases, plans and dtypes: a line for each recurrence. Returns the failures.
int64_t run_grid(const CheckCase& base, const std::vector<std::string>& cells) {
  fmt::print(
      "Largest deviation in units of the permitted, over y, hT, du, dw, dh0 and residuals; "
      "B{} T{} D{}.\nPlans: sequential, speculative, newton, auto.\n\n",
      base.batch, base.steps, base.channels);
  fmt::print("{:<10} {:>7} {:>5}", "cell", "weights", "bias");
  for (const std::string& dtype : kDtypes) fmt::print("  {:<23}", dtype);
  fmt::print("\n");
  int64_t cases = 0, failures = 0;
  std::vector<std::pair<CheckCase, CheckReport>> failed;
  for (const std::string& cell : cells) {
    for (const double weight_scale : {0.5, 1.0, 2.0, 4.0, 8.0}) {
      for (const double gate_bias : {-8.0, -4.0, 0.0, 4.0, 8.0}) {
        fmt::print("{:<10} {:>7} {:>5}", cell, fmt::format("±{:g}", weight_scale), gate_bias);
        for (const std::string& dtype : kDtypes) {
          fmt::print(" ");
          for (const std::string& plan : kPlans) {
            CheckCase check = base;
            check.cell = cell;
            check.weight_scale = weight_scale;
            check.gate_bias = gate_bias;
            check.dtype = dtype;
            check.options.plan = plan;
            check.seed = base.seed + uint64_t(cases++);
            const CheckReport report = check_within_memory(check);
            fmt::print(" {:>5}", report.passed() ? fmt::format("{:.3f}", report.worst()) : "FAIL");
            if (!report.passed()) failed.emplace_back(check, report);
          }
        }
        fmt::print("\n");
        std::fflush(stdout);
        for (const auto& [check, report] : failed) print(check, report);
        failures += std::ssize(failed);
        failed.clear();
      }
    }
  }
  fmt::print("\n{} cases, {} failed\n", cases, failures);
  return failures;
}

}  // namespace

void add_check_command(CLI::App& program) {
  struct Arguments {
    CheckCase check;
    std::string device = "cpu";
    bool grid = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CheckCase& check = arguments->check;
  CLI::App* command =
      program.add_subcommand("check", "Compare the parallel engine with the plain loop");
  command->footer(kCriterion);
  const auto sizes = is_number(int64_t(0), int64_t(1) << 24);
  auto* cell = add_cell_option(*command, check.cell,
                               "the cell, a name or a file; with --grid: only this one");
  auto* batch = command->add_option("--batch", check.batch, "batch rows")
                    ->capture_default_str()
                    ->check(sizes);
  auto* steps = command->add_option("--steps", check.steps, "steps of the sequence")
                    ->capture_default_str()
                    ->check(sizes);
  auto* channels = command->add_option("--channels", check.channels, "channels")
                       ->capture_default_str()
                       ->check(sizes);
  auto* weights =
      command
          ->add_option("--weight-scale", check.weight_scale, "recurrent weights are uniform in ±S")
          ->capture_default_str();
  auto* bias =
      command
          ->add_option("--gate-bias", check.gate_bias, "added to the first input of each channel")
          ->capture_default_str();
  auto* dtype = command->add_option("--dtype", check.dtype, "dtype of the tensors")
                    ->capture_default_str()
                    ->check(CLI::IsMember(kDtypes));
  add_device_option(*command, arguments->device);
  command->add_option("--seed", check.seed, "of the random numbers")->capture_default_str();
  add_scan_options(*command, check.options);
  auto* plan = command->get_option("--plan");
  auto* chunk =
      command->add_option("--chunk", check.options.chunk, "steps a chunk; 0: the planner's choice")
          ->capture_default_str()
          ->check(sizes);
  auto* burn_in = command
                      ->add_option("--burn-in", check.options.burn_in,
                                   "steps a chunk starts early; -1: the planner's choice")
                      ->capture_default_str()
                      ->check(is_number(int64_t(-1), int64_t(1) << 24));
  add_threads_option(*command);
  command
      ->add_flag("--grid", arguments->grid,
                 "all cells, weight scales 0.5 to 8, gate biases -8 to 8, plans and dtypes: a line "
                 "for each recurrence, failures in full")
      ->excludes(weights, bias, dtype, plan);
  command->callback([=] {
    CheckCase check = arguments->check;
    check.device = train::find_device(arguments->device).str();
    bool passed = false;
    if (arguments->grid) {
      // Short sequences that are cut all the same, the last chunk not whole.
      if (batch->count() == 0) check.batch = 1;
      if (steps->count() == 0) check.steps = 300;
      if (channels->count() == 0) check.channels = 16;
      if (chunk->count() == 0) check.options.chunk = 64;
      if (burn_in->count() == 0) check.options.burn_in = 32;
      std::vector<std::string> cells = {check.cell};
      if (cell->count() == 0) {
        cells.clear();
        for (const CellDefinition& each : built_in_cells()) cells.push_back(each.name);
      }
      passed = run_grid(check, cells) == 0;
    } else {
      const CheckReport report = check_within_memory(check);
      print(check, report);
      passed = report.passed();
    }
    if (!passed) throw CLI::RuntimeError(1);
  });
}

}  // namespace pararnn::cli
