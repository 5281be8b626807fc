// The plain loops of any cell: what the engine is compared with, and what it has to beat.
#pragma once

#include "cells/cell_definition.hpp"
#include "pararnn/cell_reference.hpp"

namespace pararnn {

/// Throws Error if they have to be compiled, and cannot be.
const CellReference& cell_reference(const CellDefinition& cell);

}  // namespace pararnn
