// What is told of a command line that cannot be understood.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace pararnn::cli {

/// The candidate that was most likely meant by `word`: it begins so, or a slip of the fingers lies
/// between them. Empty if there is none.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// All names of options, "--steps", that a command takes itself.
std::vector<std::string> option_names(const CLI::App& command);

/// Makes each option that takes a number refuse what is none, and NaN, in the same words. To be
/// called when all commands have been added.
void refuse_what_is_no_number(CLI::App& program);

/// What is wrong, and which --help to see. `error` is what parsing threw.
std::string describe(const CLI::App& program, const CLI::ParseError& error);

}  // namespace pararnn::cli
