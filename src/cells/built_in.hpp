// What only the files beside this one ask: which text the built-in cells were compiled from.
#pragma once

#include <string>
#include <string_view>

namespace pararnn {

/// The digest of the built-in cell of that name.
const std::string& digest_of_built_in(std::string_view name);

}  // namespace pararnn
