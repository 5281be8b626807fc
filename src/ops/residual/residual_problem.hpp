// What the kernels of residual_kernel.hpp take.
#pragma once

namespace pararnn::ops {

/// Rows of `width` channels, so many numbers apart. X: x and sum; Y: branch; P: scale.
struct ResidualForward {
  long long rows;
  int width;
  long long x_stride, branch_stride;
  const void *x, *scale, *branch;
  void* sum;  // rows next to each other
};

/// The gradient of the scale is for each block of the grid what its rows give, to be added up.
struct ResidualBackward {
  long long rows;
  int width;
  long long branch_stride, dsum_stride;
  const void *scale, *branch, *dsum;
  void* dbranch;  // rows next to each other
  float* dscale;  // (blocks,width)
};

}  // namespace pararnn::ops
