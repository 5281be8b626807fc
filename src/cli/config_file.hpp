// Options from a file: `pararnn train --config FILE`, a line `name = value` for each option, as it
// is called on the command line but without the dashes; # begins a comment. What the command line
// says goes first. A file for several commands has their options under [train], [eval], ...
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

/// Adds --config to all subcommands that are added afterwards.
void add_config_file_option(CLI::App& program);

}  // namespace pararnn::cli
