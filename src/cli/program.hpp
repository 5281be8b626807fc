// The program. Each subcommand adds itself; here are only what they share: config files, and how
// errors are told.
#pragma once

namespace pararnn::cli {

/// Runs the program with main's arguments; its exit status.
int run_program(int argc, char** argv);

}  // namespace pararnn::cli
