#include "ops/decode/decode_product.hpp"

#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "base/error.hpp"
#include "jit/kernel.hpp"
#include "pararnn/cuda/problem.hpp"

namespace pararnn::ops {

using torch::Tensor;

static_assert(kDecodeMultiple == kDecodeDepth);

std::string DecodePlan::arguments() const {
  return fmt::format("{}, {}, {}", tiles, columns, own_product);
}

int64_t DecodePlan::rows_of_block() const {
  return own_product ? kDecodeRows : kDecodeThreads / (tiles * columns * kDecodeChannels);
}

int64_t DecodePlan::parts_of_head() const {
  const int64_t channels = tiles * columns * kDecodeChannels;
  return blocks * channels / std::min<int64_t>(channels, cuda::kWarp);
}

DecodePlan plan_decode(int64_t groups, int64_t channels, int64_t heads, int64_t depth,
                       int64_t batch, int64_t multiprocessors) {
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  if (batch > kDecodeRows) {
    DecodePlan after{.tiles = 1,
                     .columns = cuda::kWarp / kDecodeChannels,
                     .own_product = false,
                     .blocks = up(channels, cuda::kWarp),
                     .row_blocks = 0};
    after.row_blocks = up(batch, after.rows_of_block());
    return after;
  }
  // One plan for all of these batches, so that a row is what it is alone.
  DecodePlan best{};
  best.own_product = true;
  best.row_blocks = 1;
  // What takes longest: the weights from memory, all blocks' bytes from the second cache, or those
  // of the multiprocessor with most of them; and what a block begins and ends with, two at a time.
  // In bytes from the second cache, by an H100's rates.
  constexpr double kOfMemory = 1.8, kOfMultiprocessor = 100, kOfRound = 3e6;
  const double weights = 2.0 * double(groups * channels * heads) * double(depth);
  double least = 0;
  for (int64_t in_block = 1; in_block <= 16; in_block *= 2) {
    // As few columns as registers allow: warps of one column share x.
    const int64_t tiles = std::min<int64_t>(in_block, groups > 2 ? 1 : 4 / groups);
    const int64_t columns = in_block / tiles;
    if (columns > 4) break;
    const int64_t blocks = up(channels, in_block * kDecodeChannels);
    const double bytes = 2.0 * double(depth) * double(groups * in_block * kDecodeChannels + 1);
    const auto all = double(blocks * heads);
    const double of_one = bytes * double(up(int64_t(all), multiprocessors));
    const double time = std::max({kOfMemory * weights, all * bytes, kOfMultiprocessor * of_one}) +
                        kOfRound * double(up(int64_t(all), 2 * multiprocessors));
    if (in_block == 1 || time < least) {
      least = time;
      best.tiles = tiles;
      best.columns = columns;
      best.blocks = blocks;
    }
  }
  return best;
}

DecodeTaps taps_of(const torch::Tensor& taps, const torch::Tensor& before) {
  return {static_cast<int>(taps.size(0)), static_cast<int>(taps.size(1)), taps.data_ptr<float>(),
          before.data_ptr()};
}

DecodeSquares squares_to(const torch::Tensor& squares) {
  return {squares.data_ptr<float>(), static_cast<int>(squares.size(1))};
}

void launch_decode(const jit::KernelSource& source, const torch::Tensor& on, dim3 grid, int threads,
                   std::span<const std::byte> problem) {
  const c10::DeviceGuard device(on.device());
  const c10::impl::VirtualGuardImpl gpu(on.device().type());
  void* const argument = const_cast<std::byte*>(problem.data());
  const size_t bytes = problem.size();
  jit::launch(jit::get_kernel(source),
              {.grid = grid,
               .block = dim3(static_cast<unsigned>(threads)),
               .stream = static_cast<cudaStream_t>(gpu.getStream(on.device()).native_handle()),
               .overlaps = has_clusters(on)},  // which come with compute capability 9.0 too
              std::span<void* const>(&argument, 1), std::span<const size_t>(&bytes, 1));
}

Product::Product(const DecodeInput& input, const torch::Tensor& weight, int64_t groups,
                 int64_t heads)
    : on(weight) {
  const int64_t depth = weight.size(-1), batch = input.x.size(0);
  const int64_t channels = weight.numel() / depth / heads / groups;
  require(depth % kDecodeDepth == 0, "a row of weights has {} numbers, no multiple of {}", depth,
          kDecodeDepth);
  plan = plan_decode(groups, channels, heads, depth, batch, multiprocessors_of(weight));
  problem = {.batch = static_cast<int>(batch),
             .heads = static_cast<int>(heads),
             .channels = static_cast<int>(channels),
             .depth = static_cast<int>(depth),
             .weight = weight.data_ptr(),
             .x = input.x.data_ptr(),
             .squares = input.squares.defined() ? input.squares.data_ptr<float>() : nullptr,
             .parts = input.squares.defined() ? static_cast<int>(input.squares.size(1)) : 0,
             .width = static_cast<int>(input.x.size(1)),
             .head_stride = static_cast<int>(input.x.size(1) == depth ? 0 : depth),
             .epsilon = static_cast<float>(input.epsilon),
             .sums = nullptr,
             .sums_row = 0,
             .sums_head = 0};
  if (plan.own_product) return;
  if (input.x.size(1) == depth) {
    sums = at::mm(input.x, weight.view({-1, depth}).t(), torch::kFloat)
               .view({batch, heads, groups * channels});
  } else {
    const Tensor x = input.x.view({batch, heads, depth}).transpose(0, 1);
    const Tensor rows = weight.view({heads, groups * channels, depth});
    sums = at::bmm(x, rows.transpose(1, 2), torch::kFloat).transpose(0, 1);
  }
  problem.sums = sums.data_ptr<float>();
  problem.sums_row = static_cast<int>(sums.stride(0));
  problem.sums_head = static_cast<int>(sums.stride(1));
}

}  // namespace pararnn::ops
