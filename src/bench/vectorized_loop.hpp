// A baseline on the CPU: the scalar loop with time outside and channels inside, vectorised over
// channels by the compiler with the C library's vector functions and relaxed arithmetic; one
// thread.
#pragma once

#include <string>

#include "pararnn/reference.hpp"

namespace pararnn::bench {

/// Takes what reference_forward takes, but has h0 in `hT`.
using VectorizedLoop = void (*)(const Shape& shape, const float* u, const float* w, float* hT,
                                float* y);

/// Null for a cell that was not compiled with this program. Throws Error for one that does not
/// exist.
VectorizedLoop find_vectorized_loop(const std::string& cell);

}  // namespace pararnn::bench
