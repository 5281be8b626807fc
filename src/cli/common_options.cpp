#include "cli/common_options.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <thread>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "nn/config.hpp"
#include "pararnn/plan.hpp"
#include "train/config.hpp"
#include "train/device.hpp"

namespace pararnn::cli {
namespace {

int available_cores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return CPU_COUNT(&cores);
  return static_cast<int>(std::thread::hardware_concurrency());
}

/// Turns a file into the name under which its cell is registered.
CLI::Validator cell_validator() {
  return CLI::Validator(
      [](std::string& cell) -> std::string {
        const bool is_file = cell.find_first_of("/.") != cell.npos;
        try {
          cell = spelling_of(find_cell(cell));
        } catch (const Error& error) {
          if (is_file) throw;  // with all that the compiler said
          return error.what();
        }
        return "";
      },
      "");
}

}  // namespace

CLI::Validator layer_pattern_validator() {
  return CLI::Validator(
      [](const std::string& pattern) -> std::string {
        try {
          nn::require_mixers(pattern);
        } catch (const Error& error) {
          return error.what();
        }
        return "";
      },
      "");
}

void use_threads(int threads) { torch::set_num_threads(threads > 0 ? threads : available_cores()); }

void add_threads_option(CLI::App& command) {
  command
      .add_option_function<int>("--threads", use_threads, "threads to compute with; 0: one a core")
      ->default_str("0")
      ->check(is_number(0, 4096));
}

void add_device_option(CLI::App& command, std::string& device) {
  const CLI::Validator named(
      [](const std::string& name) {
        return train::is_device_name(name) ? "" : name + " is not auto, cpu, cuda or cuda:N";
      },
      "");
  command
      .add_option("--device", device,
                  "where to compute: cpu, cuda, or cuda:1 for the second GPU; auto: on a GPU if "
                  "there is one")
      ->capture_default_str()
      ->check(named);
}

void add_precision_option(CLI::App& command, std::string& precision) {
  command
      .add_option("--precision", precision,
                  "of matrices and activations; bfloat16 is faster where the processor has it")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bfloat16"}));
}

void add_recompute_option(CLI::App& command, std::string& recompute) {
  const std::vector<std::string> names(std::begin(train::kRecomputeNames),
                                       std::end(train::kRecomputeNames));
  command
      .add_option("--recompute", recompute,
                  "what the backward pass computes again instead of keeping it: nothing (none), in "
                  "each block what comes before its MLP (mixer), all of the block (block), or as "
                  "little as fits into memory (auto)")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
}

void add_plan_option(CLI::App& command, std::string& plan) {
  const std::vector<std::string> names(std::begin(kPlanNames), std::end(kPlanNames));
  command
      .add_option("--plan", plan,
                  "how a sequence is cut to run in parallel; planner: by its sizes alone; auto: on "
                  "a GPU also by what earlier calls took")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
}

void add_graph_option(CLI::App& command, std::string& graph) {
  const std::vector<std::string> names(std::begin(train::kGraphNames),
                                       std::end(train::kGraphNames));
  command
      .add_option("--graph", graph,
                  "how a GPU is given its steps: auto, as one CUDA graph once their kernels and "
                  "plans are known; off, kernel by kernel")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
}

void add_deterministic_option(CLI::App& command) {
  command.add_flag_callback("--deterministic", train::use_deterministic_algorithms,
                            "compute the same bits each time on a GPU too, by slower operations "
                            "where need be; a resumed run "
                            "needs it again");
}

void add_scan_options(CLI::App& command, ScanOptions& options) {
  add_plan_option(command, options.plan);
  command
      .add_option("--tolerance", options.tolerance,
                  "mismatch allowed where a sequence is cut, relative to 1 + |state|; 0: 1e-6, in "
                  "float64 1e-12")
      ->capture_default_str()
      ->check(is_number(0.0, kLargestTolerance));
  add_deterministic_option(command);
}

void add_model_option(CLI::App& command, ModelOption& model) {
  command
      .add_option("--model", model.path, "a run (its newest checkpoint is taken) or a checkpoint")
      ->required();
  add_trust_option(command, model.trust_cell);
}

void add_trust_option(CLI::App& command, bool& trust_cell) {
  command
      .add_flag("--trust-cell", trust_cell,
                "compile and run the cell that comes with the model, though you have not used it "
                "before")
      ->configurable(false);
}

CLI::Option* add_cell_option(CLI::App& command, std::string& cell, const std::string& meaning) {
  return command.add_option("--cell", cell, meaning)
      ->capture_default_str()
      ->transform(cell_validator());
}

CLI::Option* add_cell_option(CLI::App& command, std::vector<std::string>& cells,
                             const std::string& meaning) {
  return command.add_option("--cell", cells, meaning)
      ->delimiter(',')
      ->capture_default_str()
      ->transform(cell_validator());
}

}  // namespace pararnn::cli
