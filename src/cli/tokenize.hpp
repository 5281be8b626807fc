// pararnn tokenize: text to shards of tokens, once, before training.
#pragma once

#include <CLI/CLI.hpp>

namespace pararnn::cli {

void add_tokenize_command(CLI::App& program);

}  // namespace pararnn::cli
