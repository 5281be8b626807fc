// Options that several subcommands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace pararnn::cli {

/// Computes with that many threads; 0: one for each core that this process may use.
void use_threads(int threads);

/// --threads: as use_threads.
void add_threads_option(CLI::App& command);

/// --device: a name for train::find_device.
void add_device_option(CLI::App& command, std::string& device);

/// --precision: the name of a dtype, for train::precision_dtype.
void add_precision_option(CLI::App& command, std::string& precision);

/// --model: a run or a checkpoint.
void add_model_option(CLI::App& command, std::string& model);

}  // namespace pararnn::cli
