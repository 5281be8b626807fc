// Cells for callers that know LibTorch's operators alone, such as the Python package: how they are
// read and defined, and what they are.
#include <torch/library.h>

#include "cells/cell_registry.hpp"
#include "ops/scan.hpp"

namespace pararnn {
namespace {

std::string define_cell_operator(const std::string& text, const std::string& type,
                                 const std::string& origin) {
  return register_cell(define_cell(text, type, origin)).key();
}

std::string cell_key(const std::string& cell) { return find_cell(cell).key(); }

std::vector<int64_t> cell_sizes(const std::string& name) {
  const CellDefinition& cell = find_cell(name);
  return {cell.state, cell.inputs, cell.params, cell.memory_input, cell.memory_direction};
}

std::tuple<std::string, std::string, std::string, std::string> cell_texts(const std::string& name) {
  const CellDefinition& cell = find_cell(name);
  return {cell.name, cell.type, cell.summary, cell.text};
}

std::tuple<std::vector<std::string>, std::vector<std::string>, std::vector<std::string>> cell_names(
    const std::string& name) {
  const CellDefinition& cell = find_cell(name);
  return {cell.state_names, cell.input_names, cell.param_names};
}

std::vector<int64_t> cell_side_inputs(const std::string& name) {
  const CellDefinition& cell = find_cell(name);
  return {cell.side_inputs.begin(), cell.side_inputs.end()};
}

std::vector<std::string> cell_list() {
  std::vector<std::string> names;
  for (const CellDefinition* cell : registered_cells()) names.push_back(cell->name);
  return names;
}

std::tuple<std::string, std::vector<int64_t>, double> last_statistics(bool backward) {
  const auto [forward_pass, backward_pass] = last_scan_statistics();
  const ScanStatistics& s = backward ? backward_pass : forward_pass;
  return {s.plan,
          {s.chunk, s.chunks, s.burn_in, s.newton_iterations, s.columns, s.columns_corrected,
           s.columns_repaired},
          s.largest_mismatch};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def("_define_cell(str text, str type, str origin) -> str", &define_cell_operator);
  m.def("_cell_key(str cell) -> str", &cell_key);
  m.def("_cell_sizes(str cell) -> int[]", &cell_sizes);
  m.def("_cell_texts(str cell) -> (str name, str type, str summary, str text)", &cell_texts);
  m.def("_cell_names(str cell) -> (str[] state, str[] inputs, str[] params)", &cell_names);
  m.def("_cell_side_inputs(str cell) -> int[]", &cell_side_inputs);
  m.def("_cell_list() -> str[]", &cell_list);
  m.def("_last_statistics(bool backward) -> (str plan, int[] counts, float largest_mismatch)",
        &last_statistics);
}

}  // namespace pararnn
