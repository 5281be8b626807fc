// pararnn bench: how fast the engine is, against the step-by-step loops and the memory's bandwidth.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_bench_command(CLI::App& program);

}  // namespace pararnn::cli
