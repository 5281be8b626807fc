// All cells of the process, by name: the built-in ones, and those that were registered. A cell that
// is defined anew under its old name is another definition; "name@digest" tells them apart for
// good, and a bare name means the newest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cells/cell_definition.hpp"

namespace pararnn {

/// The cells whose text is part of the library, in a fixed order. They are registered already.
const std::vector<CellDefinition>& built_in_cells();

/// Makes a cell known to the operators. Returns the one that is kept, for as long as the process
/// lives; registering the same text again returns the same. Throws Error if the name is that of a
/// built-in cell of another text.
const CellDefinition& register_cell(CellDefinition cell);

/// The cell whose source stands in a checkpoint's `file`, registered. Its struct is the one that
/// gives it its `name`. If that is a built-in cell's, the bare name goes on meaning the built-in
/// cell. Throws as read_cell, and if it would have to be compiled, was not used by this user before
/// (cells/trusted_cells.hpp), and is not to be trusted.
const CellDefinition& find_stored_cell(const std::string& file, std::string_view name, bool trust);

/// The tangent of a cell as a cell (core/tangent.hpp), registered by its key alone. Throws Error
/// for a tangent that has more than 32 states, inputs and parameters together itself.
const CellDefinition& find_tangent(const CellDefinition& cell);

/// What find_cell takes for the cell, whatever is registered later: its key, or its name if it is
/// built in.
std::string spelling_of(const CellDefinition& cell);

/// The cell that is meant by a name ("gru"), a key ("gru@5f0c…") or a file ("./leaky.hpp",
/// "cells.hpp:Leaky"), which is read and registered, and read again when it has changed. Throws
/// Error with the names there are.
const CellDefinition& find_cell(std::string_view cell);

/// All cells that a bare name means, sorted by name.
std::vector<const CellDefinition*> registered_cells();

}  // namespace pararnn
