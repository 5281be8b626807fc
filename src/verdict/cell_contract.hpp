// What a verdict knows of a cell: its names and sizes, which inputs are of a special kind, how its
// text is included, and the functions that the analyses evaluate.
#pragma once

#include <string>
#include <vector>

#include "jit/source.hpp"
#include "pararnn/analysis/channel.hpp"

namespace pararnn {

struct CellContract {
  std::string name, summary;
  std::vector<std::string> state, inputs, params;  // names
  InputRoles roles;
  bool has_memory_input = false;     // roles.memory_input is known to drive the memory
  std::string type;                  // "pararnn::Gru"
  std::string header;                // to be included for it: "pararnn/cells/gru.hpp"
  std::vector<jit::Header> headers;  // beside the engine's
  CellAnalysis analysis;

  /// The name of an argument: state first, then inputs, then parameters.
  const std::string& argument(int i) const;
};

/// Throws Error if there is no such cell.
CellContract cell_contract(const std::string& cell);

}  // namespace pararnn
