// A pseudo-random permutation of 0..size-1 that is computed at a point, without a table: a Feistel
// network permutes the numbers of an even count of bits, and walking its cycle until a number below
// `size` comes brings it down to any size (Black and Rogaway 2002). It is the order of an epoch,
// however long the text.
#pragma once

#include <cstdint>

namespace pararnn::data {

/// The place of `index` in the permutation of 0..size-1 that belongs to `key`; 0 <= index < size.
int64_t permute(int64_t index, int64_t size, uint64_t key);

}  // namespace pararnn::data
