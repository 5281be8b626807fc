// Errors with a formatted sentence. The program prints the sentence and exits.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "pararnn/error.hpp"

namespace pararnn {

/// Throws Error with the formatted sentence unless `ok`.
template <class... Arguments>
void require(bool ok, fmt::format_string<Arguments...> sentence, Arguments&&... arguments) {
  if (!ok) throw Error(fmt::format(sentence, std::forward<Arguments>(arguments)...));
}

}  // namespace pararnn
