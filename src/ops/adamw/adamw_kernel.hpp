// AdamW on a GPU (adamw.hpp): many tensors in one launch, each number read once and written once.
#pragma once

#include "ops/adamw/adamw_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

/// N neighbouring numbers of what the kernel itself writes: not by the read-only path.
template <int N>
PARARNN_DEVICE_FN Vec<float, N> load_own(const float* from) {
  using Pack = cuda::Pack<float, N>;
  using Word = typename cuda::WordOf<sizeof(Pack)>::type;
  return __builtin_bit_cast(Pack, *reinterpret_cast<const Word*>(from)).unpack();
}

template <class W, int kWidth>
PARARNN_DEVICE_FN void update_pack(const AdamWFactors<float>& factors, const AdamWEntry& tensor,
                                   Int at) {
  const auto gradient = load_channels<kWidth>(static_cast<const W*>(tensor.gradient) + at);
  auto master = load_own<kWidth>(tensor.master + at);
  auto first = load_own<kWidth>(tensor.first_moment + at);
  auto second = load_own<kWidth>(tensor.second_moment + at);
  static_for<kWidth>([&](auto i) { factors.update(gradient[i], master[i], first[i], second[i]); });
  store_channels(master, tensor.master + at);
  store_channels(first, tensor.first_moment + at);
  store_channels(second, tensor.second_moment + at);
  if constexpr (!kSame<W, float>) store_channels(master, static_cast<W*>(tensor.weight) + at);
}

/// Every tensor begins at a multiple of kWidth numbers' bytes.
template <class W, int kWidth>
__global__ void __launch_bounds__(kAdamWThreads)
    adamw_update(const __grid_constant__ AdamWProblem problem) {
  const AdamWScalars scalars = *problem.scalars;
  if (scalars.finite == 0) return;
  int number = 0;  // of the tensor of this block: the last that begins at it or before
  for (int step = kAdamWTensors / 2; step > 0; step /= 2) {
    if (problem.tensors[number + step].first_block <= static_cast<int>(blockIdx.x)) number += step;
  }
  const AdamWEntry& tensor = problem.tensors[number];
  const AdamWFactors<float> factors{scalars.gradient_scale,
                                    scalars.step_size,
                                    scalars.inverse_root,
                                    problem.change1,
                                    problem.change2,
                                    problem.epsilon,
                                    tensor.decays ? scalars.decay : 0};
  const Int begin = Int(static_cast<int>(blockIdx.x) - tensor.first_block) * kAdamWNumbers;
  const Int end = begin + kAdamWNumbers < tensor.count ? begin + kAdamWNumbers : tensor.count;
  const Int whole = end - end % kWidth;
  for (Int i = begin + threadIdx.x * kWidth; i < whole; i += kAdamWThreads * kWidth) {
    update_pack<W, kWidth>(factors, tensor, i);
  }
  if (whole + threadIdx.x < end) update_pack<W, 1>(factors, tensor, whole + threadIdx.x);
}

}  // namespace pararnn::ops
