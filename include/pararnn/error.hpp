// Errors of pararnn. Bad input gets one sentence that names the culprit and the mend: whoever finds
// it throws Error, in the engine and above it, and nothing else is ever thrown on purpose.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <stdexcept>

namespace pararnn {

/// What went wrong, in one sentence for the user. A RuntimeError to Python.
struct Error : std::runtime_error {
  using runtime_error::runtime_error;
};

}  // namespace pararnn
#endif
