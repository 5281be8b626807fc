// pararnn check: is the parallel engine right? Compares it with the plain loop.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_check_command(CLI::App& program);

}  // namespace pararnn::cli
