// The version of the library, for `--version` and for files that say who wrote them.
#pragma once

#include <string>

namespace pararnn {

/// "pararnn 0.1.0, LibTorch 2.11.0, avx512": this library, the LibTorch loaded, and the instruction
/// set of the kernels for CPUs.
std::string version();

}  // namespace pararnn
