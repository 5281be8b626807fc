// What host and kernels agree on of rows of channels.
#pragma once

namespace pararnn::ops {

/// Threads of a block, about, where a row has not more.
inline constexpr int kRowBlockThreads = 128;

/// Threads of a block whose rows have so many each: whole rows.
constexpr int row_block_threads(int threads_of_row) {
  return threads_of_row > kRowBlockThreads ? threads_of_row
                                           : kRowBlockThreads / threads_of_row * threads_of_row;
}

}  // namespace pararnn::ops
