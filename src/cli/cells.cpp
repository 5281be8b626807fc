#include "cli/cells.hpp"

#include <fmt/format.h>

#include "pararnn/cells.hpp"

namespace pararnn::cli {

void add_cells_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("cells", "List the cells and their sizes a channel");
  command->callback([] {
    fmt::print("{:<10} {:>5} {:>6} {:>7}\n", "cell", "state", "inputs", "weights");
    for (const CellInfo& cell : cell_registry()) {
      fmt::print("{:<10} {:>5} {:>6} {:>7}  {}\n", cell.name, cell.state, cell.inputs, cell.params,
                 cell.summary);
    }
  });
}

}  // namespace pararnn::cli
