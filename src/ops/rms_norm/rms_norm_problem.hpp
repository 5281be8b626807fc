// What the kernels of rms_norm_kernel.hpp take.
#pragma once

namespace pararnn::ops {

/// Where silu(gate) multiplies: what the norm gives, or what it takes.
enum class NormGate { kNone, kAfter, kBefore };

/// Rows of `width` channels, so many numbers apart. X: x and sum; Y: branch, gate and y; P: scale
/// and weight.
struct RmsNormForward {
  long long rows;
  int width;
  float epsilon;
  long long x_stride, branch_stride, gate_stride;
  const void *x, *scale, *branch, *weight, *gate;
  void *sum, *y;  // rows next to each other
};

/// With dsum, the gradient of the sum from elsewhere, if it is not null. The gradients of weight
/// and, with kResidual, scale are for each block of the grid what its rows give, to be added up.
struct RmsNormBackward {
  long long rows;
  int width;
  float epsilon;
  long long x_stride, branch_stride, gate_stride, dy_stride, dsum_stride, dgate_stride;
  const void *x, *scale, *branch, *weight, *gate, *dy, *dsum;  // x is the sum with kResidual
  void *dx, *dbranch, *dgate;  // rows of dx and dbranch next to each other
  float* sums;                 // (blocks, 1 or 2, width)
};

}  // namespace pararnn::ops
