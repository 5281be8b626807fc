// The text that `pararnn cells new` writes: a commented cell that already trains, to be changed.
#pragma once

#include <string>
#include <vector>

namespace pararnn {

/// A cell of that name, such as "my_cell", with named inputs and states. The first of several
/// inputs gates the update, the last makes the candidate. Throws Error for a name that C++ does
/// not take, or more numbers than a cell has.
std::string cell_skeleton(const std::string& name, const std::vector<std::string>& inputs,
                          const std::vector<std::string>& states);

}  // namespace pararnn
