#include "data/permutation.hpp"

#include <bit>

#include "base/hash.hpp"

namespace pararnn::data {

int64_t permute(int64_t index, int64_t size, uint64_t key) {
  constexpr int kRounds = 6;
  const int half_bits = (std::bit_width(static_cast<uint64_t>(size - 1)) + 1) /
                        2;  // fewer than 4 size numbers in all
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  auto number = static_cast<uint64_t>(index);
  do {
    uint64_t left = number >> half_bits;
    uint64_t right = number & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (mix(mix(key + static_cast<uint64_t>(round)) ^ right) & mask);
      left = right;
      right = next;
    }
    number = left << half_bits | right;
  } while (number >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(number);
}

}  // namespace pararnn::data
