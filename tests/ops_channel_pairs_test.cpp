// Which tensors the kernels may read two channels at a time, against every address that such an
// access would have.
#include "kernels/cuda/channel_pairs.hpp"

#include <gtest/gtest.h>

#include "ops/scan/stable_tensor.hpp"

namespace pararnn {
namespace {

using torch::Tensor;

bool comes_in_pairs(const Tensor& t) { return kernels::comes_in_pairs(to_stable(t)); }

Tensor aligned_for(int width, const Tensor& t) {
  return from_stable(kernels::aligned_for(width, to_stable(t)));
}

/// The addresses of all channels 2i are aligned to two, and 2i+1 lies behind.
bool every_pair_is_aligned(const Tensor& t) {
  const int64_t D = t.size(-1), size = t.element_size();
  if (D % 2 != 0) return false;
  for (int64_t row = 0; row < t.numel() / D; ++row) {
    int64_t offset = 0, rest = row;
    for (int64_t i = t.dim() - 2; i >= 0; --i) {
      offset += rest % t.size(i) * t.stride(i);
      rest /= t.size(i);
    }
    for (int64_t d = 0; d < D; d += 2) {
      const auto address = reinterpret_cast<uintptr_t>(t.const_data_ptr()) +
                           uintptr_t((offset + d * t.stride(-1)) * size);
      if (address % uintptr_t(2 * size) != 0 || t.stride(-1) != 1) return false;
    }
  }
  return true;
}

TEST(ChannelPairs, AreThereOnlyIfEachOfThemIsAligned) {
  for (const auto type : {torch::kBFloat16, torch::kFloat32, torch::kFloat64}) {
    const Tensor flat = torch::arange(4096).to(type);
    int pairs = 0, others = 0;
    for (const int64_t first : {0, 1, 2, 3, 4, 6, 7}) {
      for (const int64_t D : {1, 2, 3, 6, 8}) {
        for (const int64_t step : {D, D + 1, D + 2}) {
          for (const int64_t between : {1, 2}) {
            const Tensor t =
                flat.as_strided({2, 5, D}, {40 * between, step * between, between}, first);
            EXPECT_EQ(comes_in_pairs(t), every_pair_is_aligned(t))
                << first << " " << D << " " << step << " " << between;
            (comes_in_pairs(t) ? pairs : others) += 1;
          }
        }
      }
    }
    EXPECT_GT(pairs, 0);
    EXPECT_GT(others, pairs);
  }
}

TEST(ChannelPairs, AContiguousPartOfALargerTensorIsCopiedIfItIsNotAligned) {
  const Tensor flat = torch::arange(100).to(torch::kFloat32);
  for (const int64_t first : {0, 1, 2, 3}) {
    const Tensor part = flat.narrow(0, first, 3 * 8).view({3, 8});
    ASSERT_TRUE(part.is_contiguous());
    const Tensor aligned = aligned_for(2, part);
    EXPECT_TRUE(every_pair_is_aligned(aligned)) << first;
    EXPECT_TRUE(torch::equal(aligned, part));
    EXPECT_EQ(aligned.data_ptr() == part.data_ptr(), first % 2 == 0);
    EXPECT_EQ(aligned_for(1, part).data_ptr(), part.data_ptr());
  }
}

}  // namespace
}  // namespace pararnn
