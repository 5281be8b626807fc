// Which cells may be compiled and run though they came with a file from elsewhere. A checkpoint
// carries the source of its cell, and compiled source can do whatever its reader can. So a cell out
// of a checkpoint is compiled only if this user has used its source before (named its file,
// registered it, or said so once); what was used is kept in the user's data folder,
// $XDG_DATA_HOME/pararnn/cells or ~/.local/share/pararnn/cells.
#pragma once

#include "cells/cell_definition.hpp"

namespace pararnn {

/// Remembers the cell's source. Where there is no folder to write to, nothing is remembered.
void trust_cell(const CellDefinition& cell);

/// Whether its source, character by character but for comments, is one that was used before, or a
/// built-in cell's.
bool is_trusted(const CellDefinition& cell);

}  // namespace pararnn
