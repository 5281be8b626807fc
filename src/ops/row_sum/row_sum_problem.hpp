// What the kernel of row_sum_kernel.hpp takes.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn::ops {

/// x (N,H,d) of rows of d neighbours; the rows are cut in pieces.
struct RowSum {
  long long rows, piece_rows, heads;
  int width;
  long long row_stride, head_stride;
  const void* x;
  void* y;  // (pieces,H,d), next to each other

  PARARNN_FN long long pieces() const { return (rows + piece_rows - 1) / piece_rows; }
  /// A warp's channels, in packs.
  PARARNN_FN int groups(int pack) const { return (width + 32 * pack - 1) / (32 * pack); }
};

}  // namespace pararnn::ops
