// pararnn cells: the built-in cells and their sizes.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_cells_command(CLI::App& program);

}  // namespace pararnn::cli
