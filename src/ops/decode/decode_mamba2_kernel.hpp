// A step of Mamba2's recurrence for one token of each row. The state, which is most of what moves,
// is read and written once.
#pragma once

#include "ops/decode/decode_kernel.hpp"
#include "ops/decode/decode_mamba2_problem.hpp"

namespace pararnn::ops {

template <int kTiles, int kColumns, bool kOwnProduct>
__global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocks<kOwnProduct>)
    decode_mamba2_input(const __grid_constant__ DecodeProblem<DecodeMamba2Input> problem) {
  const DecodeMamba2Input& e = problem.end;
  const auto product = product_of_block<1, kTiles, kColumns, kOwnProduct>(problem.product);
  product.run([&](int row, int channel, bool there, const Vec<float, 1>& sums) {
    if (!there) return;
    const int convolved = channel - e.gates, head = convolved - e.taps.width;
    if (convolved < 0) {
      e.gate[Int(row) * e.gates + channel] = silu(sums[0]);
    } else if (head < 0) {
      e.convolved[Int(row) * e.taps.width + convolved] =
          silu(convolve(e.taps, row, convolved, sums[0]) + e.bias[convolved]);
    } else {
      e.steps[Int(row) * e.heads + head] = softplus(sums[0] + e.step_bias[head]);
    }
  });
}

/// Four neighbouring numbers in one access of memory that this grid may write.
PARARNN_DEVICE_FN Vec<float, 4> load_four(const float* from) {
  using Four = Vec<float, 4>;
  return __builtin_bit_cast(Four, *reinterpret_cast<const uint4*>(from));
}

/// A team of kLanes threads takes a channel's state, kPacks times four components in each thread,
/// and does so for kChannels channels at once, one behind another by the teams of a block.
template <int kLanes, int kPacks, int kChannels>
__global__ void __launch_bounds__(kDecodeThreads, 2)
    decode_mamba2_state(const __grid_constant__ DecodeMamba2State p) {
  using Four = Vec<float, 4>;
  constexpr int kTeams = kDecodeThreads / kLanes;
  cuda::let_next_kernel_start();
  cuda::wait_for_previous_kernel();
  const int row = static_cast<int>(blockIdx.x) / p.blocks;
  const int block = static_cast<int>(blockIdx.x) % p.blocks;
  const int lane = threadIdx.x % kLanes;
  const int first = block * kTeams * kChannels + static_cast<int>(threadIdx.x) / kLanes;
  const auto component = [&](int pack) { return (pack * kLanes + lane) * 4; };
  float* const state = p.state + Int(row) * p.channels * p.components;

  Four h[kChannels][kPacks] = {};
  static_for<kChannels>([&](auto i) {
    const int channel = first + i * kTeams;
    static_for<kPacks>([&](auto k) {
      if (channel < p.channels && component(k) < p.components) {
        h[i][k] = load_four(state + Int(channel) * p.components + component(k));
      }
    });
  });
  const float* const convolved =
      p.convolved + Int(row) * (p.channels + 2 * p.groups * p.components);
  Four b[kPacks] = {}, c[kPacks] = {};
  int group = -1;
  float squares = 0;
  static_for<kChannels>([&](auto i) {
    const int channel = first + i * kTeams;
    const bool there = channel < p.channels;
    float y = 0, x = 0;
    int head = 0;
    if (there) {
      head = channel / (p.channels / p.heads);
      const int wanted = head / (p.heads / p.groups);
      if (wanted != group) {
        group = wanted;
        static_for<kPacks>([&](auto k) {
          if (component(k) < p.components) {
            const float* from = convolved + p.channels + group * p.components + component(k);
            b[k] = load_four(from);
            c[k] = load_four(from + p.groups * p.components);
          }
        });
      }
      x = convolved[channel];
      const float dt = p.steps[Int(row) * p.heads + head], dtx = dt * x;
      const float decay = exp(-exp(p.decay_log[head]) * dt);
      static_for<kPacks>([&](auto k) {
        static_for<4>([&](auto j) {
          h[i][k][j] = decay * h[i][k][j] + dtx * b[k][j];
          y += h[i][k][j] * c[k][j];
        });
        if (component(k) < p.components) {
          *reinterpret_cast<uint4*>(state + Int(channel) * p.components + component(k)) =
              __builtin_bit_cast(uint4, h[i][k]);
        }
      });
    }
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      y += __shfl_xor_sync(0xffffffffu, y, distance);
    }
    if (there && lane == 0) {
      const Int at = Int(row) * p.channels + channel;
      const float gated = (y + p.skip[head] * x) * p.gate[at];
      store_bfloat16(p.next, at, p.norm_weight[channel] * gated);
      squares += gated * gated;
    }
  });
  squares = sum_in_block(squares);
  if (threadIdx.x == 0) p.squares.to[Int(row) * p.squares.parts + block] = squares;
}

}  // namespace pararnn::ops
