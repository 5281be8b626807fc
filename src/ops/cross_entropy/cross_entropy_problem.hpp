// What host and kernels of cross_entropy_kernel.hpp agree on.
#pragma once

namespace pararnn::ops {

/// A thread loads 16 bytes at a time, and holds at most so many of them.
inline constexpr int kLogitsPackBytes = 16, kMostHeldPacks = 8;
/// A multiprocessor's registers are shared by so many threads, in blocks of at most so many.
inline constexpr int kCrossEntropyThreads = 1024, kMostRowThreads = 512;

/// Rows of `width` logits, `stride` apart, each with space up to the next multiple of a pack, and
/// at an address that is one. With a gradient, they are overwritten.
struct CrossEntropyRows {
  int width;
  float z_loss;
  long long stride;
  void* logits;
  const long long* targets;
  float *cross_entropies, *squared_log_partitions;  // one for each row
};

struct GradientScaling {
  long long count;
  const float* factor;
  void* gradient;
};

}  // namespace pararnn::ops
