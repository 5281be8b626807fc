// What the analyses of a cell (analysis.hpp) call, for any cell.
#pragma once

#include "cells/cell_definition.hpp"
#include "pararnn/analysis.hpp"

namespace pararnn {

/// Throws Error if it has to be compiled, and cannot be.
const CellAnalysis& cell_analysis(const CellDefinition& cell);

}  // namespace pararnn
