// What the kernels of swiglu_kernel.hpp take.
#pragma once

namespace pararnn::ops {

/// x and dx: rows of 2 `width` channels; y and dy: of `width`. dx and y are next to each other.
struct SwigluForward {
  long long rows;
  int width;
  long long x_stride;
  const void* x;
  void* y;
};
struct SwigluBackward {
  long long rows;
  int width;
  long long x_stride, dy_stride;
  const void *x, *dy;
  void* dx;
};

}  // namespace pararnn::ops
