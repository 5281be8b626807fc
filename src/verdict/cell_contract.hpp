// What a verdict knows of a cell: its definition, names for all its numbers, which inputs are of a
// special kind, and the functions that the analyses evaluate.
#pragma once

#include <string>
#include <vector>

#include "cells/cell_definition.hpp"
#include "pararnn/analysis/channel.hpp"

namespace pararnn {

struct CellContract {
  CellDefinition definition;
  std::vector<std::string> state, inputs, params;  // names
  InputRoles roles;
  CellAnalysis analysis;

  /// The name of an argument: state first, then inputs, then parameters.
  const std::string& argument(int i) const;
};

/// Throws Error if there is no such cell, or it does not compile.
CellContract cell_contract(const std::string& cell);

}  // namespace pararnn
