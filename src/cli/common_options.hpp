// Options that several subcommands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "ops/scan/scan.hpp"

namespace pararnn::cli {

/// Computes with that many threads; 0: one for each core that this process may use.
void use_threads(int threads);

/// --threads: as use_threads.
void add_threads_option(CLI::App& command);

/// --device: a name for train::find_device.
void add_device_option(CLI::App& command, std::string& device);

/// --precision: the name of a dtype, for train::precision_dtype.
void add_precision_option(CLI::App& command, std::string& precision);

/// --plan, as plan.hpp names them.
void add_plan_option(CLI::App& command, std::string& plan);

/// --deterministic: train::use_deterministic_algorithms.
void add_deterministic_option(CLI::App& command);

/// --plan, --tolerance and --deterministic: how scans are run.
void add_scan_options(CLI::App& command, ScanOptions& options);

/// A model to load.
struct ModelOption {
  std::string path;  // a run or a checkpoint
  bool trust_cell = false;
};
/// --model and --trust-cell.
void add_model_option(CLI::App& command, ModelOption& model);
void add_trust_option(CLI::App& command, bool& trust_cell);

/// A cell: a name, or a file, which is read and registered.
CLI::Option* add_cell_option(CLI::App& command, std::string& cell, const std::string& meaning);
/// Several, with commas between them.
CLI::Option* add_cell_option(CLI::App& command, std::vector<std::string>& cells,
                             const std::string& meaning);

}  // namespace pararnn::cli
