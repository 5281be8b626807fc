// Kernels may load and store two neighbouring channels as one access, which has to be aligned to
// both: a misaligned one ends the process's use of the GPU. Contiguous is not enough: a part of a
// larger tensor begins anywhere.
#pragma once

#include "kernels/torch_stable.hpp"

namespace pararnn::kernels {

/// Whether any two neighbouring channels (2i, 2i+1 of the last dimension) are aligned as one
/// access.
bool comes_in_pairs(const Tensor& t);

/// The tensor itself if it is aligned for accesses of `width` channels, or a contiguous copy that
/// is. For small tensors; its last dimension is a multiple of `width`.
Tensor aligned_for(int width, const Tensor& t);

}  // namespace pararnn::kernels
