// The text of a cell: a header together with the files beside it that it includes, so that it can
// be compiled, compared and kept as one piece. Pure functions over text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace pararnn {

/// The file with each `#include "x"` of a file beside it replaced by that file's text, a file once
/// only where it says so (#pragma once or an include guard), and #line directives, so that
/// compilers name the user's files and lines. The engine's own headers, and what is not there, stay
/// includes. Throws Error if a file cannot be read or includes itself.
std::string read_with_includes(const std::filesystem::path& path);

/// The text without comments and #line directives, spacing between words made one blank.
std::string normalized_code(std::string_view text);

/// The structs of a text that hold kState, as C++ names them: "Leaky", "mine::Leaky".
std::vector<std::string> find_cell_types(std::string_view text);

/// The file names in the #line directives of a text.
std::vector<std::string> files_of_text(std::string_view text);

}  // namespace pararnn
