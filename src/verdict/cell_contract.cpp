#include "verdict/cell_contract.hpp"

#include "cells/cell_analysis.hpp"
#include "cells/cell_registry.hpp"

namespace pararnn {
namespace {

/// The names that the struct gives, or numbered ones.
std::vector<std::string> names_or_numbers(const std::vector<std::string>& names, const char* prefix,
                                          int count) {
  if (!names.empty()) return names;
  std::vector<std::string> numbered;
  for (int i = 0; i < count; ++i) numbered.push_back(prefix + std::to_string(i));
  return numbered;
}

}  // namespace

const std::string& CellContract::argument(int i) const {
  auto k = static_cast<size_t>(i);
  if (k < state.size()) return state[k];
  k -= state.size();
  return k < inputs.size() ? inputs[k] : params[k - inputs.size()];
}

CellContract cell_contract(const std::string& name) {
  const CellDefinition& cell = find_cell(name);
  CellContract result{
      .definition = cell,
      .state = names_or_numbers(cell.state_names, "h", cell.state),
      .inputs = names_or_numbers(cell.input_names, "u", cell.inputs),
      .params = names_or_numbers(cell.param_names, "w", cell.params),
      .roles = {},
      .analysis = cell_analysis(cell),
  };
  if (cell.memory_input >= 0) {
    result.roles.memory_input = cell.memory_input;
    result.roles.memory_direction = cell.memory_direction;
  }
  result.roles.side_inputs = cell.side_inputs;
  return result;
}

}  // namespace pararnn
