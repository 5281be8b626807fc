#include "cli/cells.hpp"

#include <fmt/ranges.h>
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "cells/cell_registry.hpp"
#include "cells/cell_skeleton.hpp"
#include "cli/common_options.hpp"
#include "train/device.hpp"
#include "verdict/verdict.hpp"
#include "verdict/verdict_page.hpp"
#include "verdict/verdict_text.hpp"

namespace pararnn::cli {
namespace {

void list_cells() {
  fmt::print("{:<10} {:>5} {:>6} {:>7}\n", "cell", "state", "inputs", "weights");
  for (const CellDefinition& cell : built_in_cells()) {
    fmt::print("{:<10} {:>5} {:>6} {:>7}  {}", cell.name, cell.state, cell.inputs, cell.params,
               cell.summary);
    if (!cell.input_names.empty()) fmt::print("; inputs {}", fmt::join(cell.input_names, ", "));
    fmt::print("\n");
  }
}

void add_new_command(CLI::App& cells) {
  struct Arguments {
    std::string name, out;
    std::vector<std::string> inputs = {"z", "c"}, states = {"h"};
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = cells.add_subcommand("new", "write a cell to start from");
  command->footer(
      "Writes NAME.hpp, a commented cell that already trains.\n\n"
      "Example: pararnn cells new my_cell --inputs f,i,c --state h,m\n"
      "         pararnn cells check my_cell.hpp\n"
      "         pararnn train --cell ./my_cell.hpp --data book.txt --minutes 2\n");
  command->add_option("name", arguments->name, "the cell's name, such as my_cell")->required();
  command->add_option("--inputs", arguments->inputs, "names of the inputs: gates, candidate last")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--state", arguments->states, "names of the states: the output first")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--out", arguments->out, "the file to write; NAME.hpp by default");
  command->callback([arguments] {
    const std::string text = cell_skeleton(arguments->name, arguments->inputs, arguments->states);
    const std::filesystem::path path =
        arguments->out.empty() ? arguments->name + ".hpp" : arguments->out;
    require(!std::filesystem::exists(path), "'{}' exists already: name another file with --out",
            path.string());
    write_file(path, text);
    fmt::print("{}: check it with `pararnn cells check {}`\n", path.string(), path.string());
  });
}

void add_verdict_command(CLI::App& cells) {
  struct Arguments {
    std::string cell, device = "auto", json, html;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = cells.add_subcommand("check", "the verdict on a cell: does it parallelise?");
  command->footer(
      "Compiles the cell, compares it with its loop and with finite differences, and measures how "
      "it forgets, how Newton's method converges, its Lyapunov exponents and its cost. The "
      "verdict "
      "is one of: parallelises well, parallelises with corrections, runs in sequence.\n\n"
      "Example: pararnn cells check my_cell.hpp --html my_cell.html\n");
  command
      ->add_option("cell", arguments->cell, "a file, a struct in it (cells.hpp:Struct), or a name")
      ->required();
  command->add_option("--json", arguments->json, "a file for all the figures");
  command->add_option("--html", arguments->html, "a file for a page with plots");
  add_device_option(*command, arguments->device);
  add_threads_option(*command);
  command->callback([arguments] {
    VerdictOptions options;
    const torch::Device device = train::find_device(arguments->device);
    if (device.is_cuda()) options.devices.push_back(device.str());
    const bool terminal = ::isatty(STDERR_FILENO) != 0;
    if (terminal) {
      options.progress = [](std::string_view section) {
        fmt::print(stderr, "\r\33[K{} ...", section);
      };
    }
    const nlohmann::json found = verdict(find_cell(arguments->cell).key(), options);
    if (terminal) fmt::print(stderr, "\r\33[K");
    fmt::print("{}", verdict_text(found));
    const auto write = [](const char* option, const std::string& file, const std::string& text) {
      about_option(option, [&] { write_file(file, text); });
    };
    if (!arguments->json.empty()) write("--json", arguments->json, found.dump(1) + "\n");
    if (!arguments->html.empty()) write("--html", arguments->html, verdict_page(found));
  });
}

}  // namespace

void add_cells_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "cells", "list the cells, start a new one, or judge one: does it parallelise?");
  command->require_subcommand(0, 1);
  add_new_command(*command);
  add_verdict_command(*command);
  command->callback([command] {
    if (command->get_subcommands().empty()) list_cells();
  });
}

}  // namespace pararnn::cli
