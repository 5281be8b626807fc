// pararnn train: trains a language model on a text.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_train_command(CLI::App& program);

}  // namespace pararnn::cli
