// How `--help` looks: an option, what it takes and its default; then what it means.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

/// Gives the subcommands that are added afterwards this look.
void set_help_format(CLI::App& program);

}  // namespace pararnn::cli
