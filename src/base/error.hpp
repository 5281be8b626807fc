// Errors of pararnn. Bad input gets one sentence that names the culprit and the mend: whoever finds
// it throws Error, and the program prints the sentence and exits. Nothing else is ever thrown on
// purpose.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace pararnn {

/// What went wrong, in one sentence for the user.
struct Error : std::runtime_error {
  using runtime_error::runtime_error;
};

/// Throws Error with the formatted sentence unless `ok`.
template <class... Arguments>
void require(bool ok, fmt::format_string<Arguments...> sentence, Arguments&&... arguments) {
  if (!ok) throw Error(fmt::format(sentence, std::forward<Arguments>(arguments)...));
}

}  // namespace pararnn
