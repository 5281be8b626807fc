// pararnn generate: text from a trained model, as it is drawn.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_generate_command(CLI::App& program);

}  // namespace pararnn::cli
