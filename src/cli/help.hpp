// How `--help` looks: an option, what it takes and its default; then what it means. Texts are given
// as paragraphs, and are wrapped here.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

/// Gives the subcommands that are added afterwards this look.
void set_help_format(CLI::App& program);

}  // namespace pararnn::cli
