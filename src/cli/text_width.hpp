// Text for a terminal: lines of a bounded width.
#pragma once

#include <string>
#include <string_view>

#include "base/text_width.hpp"

namespace pararnn::cli {

/// Columns that help may take.
inline constexpr size_t kHelpColumns = 90;

/// `text` in lines of at most `columns`, all but the first behind `indent` spaces: long lines are
/// broken at spaces, or else at commas; a line's own indentation is kept.
std::string wrap(std::string_view text, size_t columns, size_t indent = 0);

}  // namespace pararnn::cli
