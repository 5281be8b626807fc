// What a cell's struct says of itself (core/description.hpp), asked of a compiler: the system's C++
// compiler, or NVRTC where there is none.
#pragma once

#include <string>

#include "cells/cell_definition.hpp"

namespace pararnn {

/// The lines of kDescription<type>. Throws jit::CompileError if the cell is none, and Error if
/// there is neither compiler.
std::string compiled_description(const CellDefinition& cell);

}  // namespace pararnn
