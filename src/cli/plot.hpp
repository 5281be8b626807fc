// pararnn plot: the curves of runs, as an SVG file.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_plot_command(CLI::App& program);

}  // namespace pararnn::cli
