// pararnn eval: how well a trained model predicts a text.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_eval_command(CLI::App& program);

}  // namespace pararnn::cli
