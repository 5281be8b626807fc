#include "verdict/cell_contract.hpp"

#include <map>

#include "base/error.hpp"
#include "pararnn/cells.hpp"

namespace pararnn {
namespace {

/// The names and the memory of a built-in cell.
struct Roles {
  std::vector<std::string> state, inputs, params;
  int memory_direction;  // 0: no input of its own drives the memory
};

const std::map<std::string, Roles>& built_in_roles() {
  static const std::map<std::string, Roles> roles = {
      {"elman", {{"h"}, {"u"}, {"w"}, 0}},
      {"gru", {{"h"}, {"z", "r", "c"}, {"w_z", "w_r", "w_c"}, -1}},
      {"lstm", {{"h", "c"}, {"f", "i", "o", "g"}, {"w_f", "w_i", "w_o", "w_g"}, 1}},
      {"lstm_cifg", {{"h", "c"}, {"f", "z", "o"}, {"w_f", "w_z", "w_o", "p_f", "p_o"}, 1}},
      {"slstm", {{"h", "c", "n", "m"}, {"f", "i", "z", "o"}, {"w_f", "w_i", "w_z", "w_o"}, 1}},
  };
  return roles;
}

CellAnalysis analysis_of(const std::string& cell) {
#define PARARNN_CELL_ANALYSIS(name, Type, summary) \
  if (cell == #name) return make_analysis<Type>();
  PARARNN_CELLS(PARARNN_CELL_ANALYSIS)
#undef PARARNN_CELL_ANALYSIS
  throw Error(fmt::format("there is no cell '{}'", cell));
}

std::vector<std::string> numbered(const char* prefix, int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(prefix + std::to_string(i));
  return names;
}

}  // namespace

const std::string& CellContract::argument(int i) const {
  auto k = static_cast<size_t>(i);
  if (k < state.size()) return state[k];
  k -= state.size();
  return k < inputs.size() ? inputs[k] : params[k - inputs.size()];
}

CellContract cell_contract(const std::string& cell) {
  const CellInfo& info = find_cell(cell);
  CellContract result{
      .name = cell,
      .summary = std::string(info.summary),
      .state = numbered("h", info.state),
      .inputs = numbered("u", info.inputs),
      .params = numbered("w", info.params),
      .roles = {},
      .has_memory_input = false,
      .type = fmt::format("pararnn::{}", info.type),
      .header = fmt::format("pararnn/cells/{}.hpp", info.name),
      .headers = {},
      .analysis = analysis_of(cell),
  };
  const auto known = built_in_roles().find(cell);
  if (known != built_in_roles().end()) {
    const Roles& roles = known->second;
    result.state = roles.state;
    result.inputs = roles.inputs;
    result.params = roles.params;
    result.has_memory_input = roles.memory_direction != 0;
    if (result.has_memory_input) result.roles.memory_direction = roles.memory_direction;
  }
  return result;
}

}  // namespace pararnn
