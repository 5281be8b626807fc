// What of a text is valid UTF-8: the rest (stray bytes, overlong forms, surrogates) is still text
// to us, byte by byte.
#pragma once

#include <cstddef>
#include <string_view>

namespace pararnn::data {

/// Bytes of the character at the start of `text`, 1 to 4; 0 if that is not valid UTF-8 or the text
/// is empty.
size_t utf8_character(std::string_view text);

/// Whether all of a text is valid UTF-8.
bool is_utf8(std::string_view text);

/// `wanted`, or the few bytes less that keep a character of `text` from being cut there.
size_t utf8_boundary(std::string_view text, size_t wanted);

}  // namespace pararnn::data
