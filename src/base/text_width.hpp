// The room that text takes on a terminal.
#pragma once

#include <algorithm>
#include <string_view>

namespace pararnn {

/// Columns of a UTF-8 text, of which each code point takes one.
inline size_t columns_of(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

}  // namespace pararnn
