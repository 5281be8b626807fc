#include "ops/decode/decode_cuda.hpp"

#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "base/error.hpp"
#include "jit/kernel.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/decode/decode_problem.hpp"
#include "pararnn/cuda/problem.hpp"

namespace pararnn::ops {
namespace {

using cuda::kWarp;
using torch::Tensor;

constexpr const char* kDecodeFile = "decode/decode_kernel.hpp";

Tensor floats_like(const Tensor& t, torch::IntArrayRef shape) {
  return torch::empty(shape, t.options().dtype(torch::kFloat));
}
Tensor halves_like(const Tensor& t, torch::IntArrayRef shape) {
  return torch::empty(shape, t.options().dtype(torch::kBFloat16));
}

/// Whether kernels of a device may start before the one before them has ended.
bool can_overlap(int device) {
  constexpr int kLeastMajor = 9;
  int major = 0;
  jit::check_cuda(
      jit::cuda().cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
      "tell the compute capability");
  return major >= kLeastMajor;
}

/// Launches a kernel that may start before the one before it has ended. The source is made anew at
/// each launch, as decoding launches from a graph.
template <class Problem>
void launch_decode(const jit::KernelSource& source, const Tensor& on, dim3 grid,
                   const Problem& problem) {
  const c10::DeviceGuard device(on.device());
  const c10::impl::VirtualGuardImpl gpu(on.device().type());
  jit::launch(jit::get_kernel(source),
              {.grid = grid,
               .block = dim3(kDecodeThreads),
               .stream = static_cast<cudaStream_t>(gpu.getStream(on.device()).native_handle()),
               .overlaps = can_overlap(on.device().index())},
              problem);
}

/// A product of `groups` groups with its plan.
struct Product {
  Product(const DecodeInput& input, const Tensor& weight, int64_t groups, int64_t heads = 1)
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
               .sums = nullptr,
               .squares = input.squares.defined() ? input.squares.data_ptr<float>() : nullptr,
               .parts = input.squares.defined() ? static_cast<int>(input.squares.size(1)) : 0,
               .width = static_cast<int>(input.x.size(1)),
               .epsilon = static_cast<float>(input.epsilon)};
    if (plan.row_tiles > 0) return;
    const Tensor rows = weight.view({heads, groups * channels, depth});
    const Tensor x = input.x.view({batch, heads, depth}).transpose(0, 1);
    sums = heads == 1 ? at::mm(x[0], rows[0].t(), torch::kFloat)
                      : at::bmm(x, rows.transpose(1, 2), torch::kFloat);
    problem.sums = sums.data_ptr<float>();
  }

  /// Memory for the sums of squares of what the product gives.
  Tensor squares() const {
    return floats_like(on, {problem.batch, plan.parts_of_head() * problem.heads});
  }
  template <class End>
  void launch(const jit::KernelSource& source, const End& end) const {
    const dim3 grid(static_cast<unsigned>(plan.blocks),
                    static_cast<unsigned>(plan.row_blocks * problem.heads));
    launch_decode(source, on, grid, DecodeProblem<End>{problem, end});
  }
  template <class End>
  void launch(const char* kernel, const End& end) const {
    launch(kernel_source(kDecodeFile, fmt::format("{}<{}>", kernel, plan.arguments())), end);
  }

  Tensor on;
  DecodePlan plan;
  DecodeProduct problem;
  Tensor sums;  // of the library's product
};

DecodeSquares squares_to(const Tensor& squares) {
  return {squares.data_ptr<float>(), static_cast<int>(squares.size(1))};
}

}  // namespace

std::string DecodePlan::arguments() const {
  return fmt::format("{}, {}, {}", tiles, columns, row_tiles);
}

int64_t DecodePlan::rows_of_block() const {
  return row_tiles > 0 ? row_tiles * kDecodeRows
                       : kDecodeThreads / (tiles * columns * kDecodeChannels);
}

int64_t DecodePlan::parts_of_head() const {
  const int64_t channels = tiles * columns * kDecodeChannels;
  return blocks * channels / std::min<int64_t>(channels, kWarp);
}

DecodePlan plan_decode(int64_t groups, int64_t channels, int64_t heads, int64_t depth,
                       int64_t batch, int64_t multiprocessors) {
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  if (batch > kDecodeOwnRows) {
    DecodePlan after{.tiles = 1,
                     .columns = kWarp / kDecodeChannels,
                     .row_tiles = 0,
                     .blocks = up(channels, kWarp),
                     .row_blocks = 0};
    after.row_blocks = up(batch, after.rows_of_block());
    return after;
  }
  const int64_t needed = up(std::min<int64_t>(batch, kDecodeMostRows), kDecodeRows);
  DecodePlan best{};
  best.row_tiles = needed <= 2 ? needed : 4;
  best.row_blocks = up(batch, best.row_tiles * kDecodeRows);
  // One plan for all batches of one tile, so that a row of a small batch is what it is alone.
  const int64_t rows_of_block = best.row_tiles == 1 ? 1 : std::min<int64_t>(batch, kDecodeMostRows);
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
    const double bytes =
        2.0 * double(depth) * double(groups * in_block * kDecodeChannels + rows_of_block);
    const auto all = double(blocks * heads * best.row_blocks);
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

DecodeInput decode_embedding_cuda(const Tensor& tokens, const Tensor& embedding,
                                  const Tensor& norm_weight, double epsilon, const Tensor& stream) {
  const int64_t batch = stream.size(0), width = stream.size(1);
  const Tensor next = halves_like(stream, {batch, width});
  const Tensor squares = floats_like(stream, {batch, 1});
  launch_decode(kernel_source(kDecodeFile, "decode_embedding"), stream,
                dim3(static_cast<unsigned>(batch)),
                DecodeEmbedding{.width = static_cast<int>(width),
                                .tokens = reinterpret_cast<long long*>(tokens.data_ptr<int64_t>()),
                                .embedding = embedding.data_ptr(),
                                .norm_weight = norm_weight.data_ptr<float>(),
                                .stream = stream.data_ptr<float>(),
                                .next = next.data_ptr(),
                                .squares = squares.data_ptr<float>()});
  return {next, squares, epsilon};
}

std::pair<Tensor, Tensor> decode_convolution_cuda(const DecodeInput& input, const Tensor& weight,
                                                  const Tensor& taps, const Tensor& before) {
  const Product product(input, weight, 2);
  const int64_t batch = input.x.size(0), width = taps.size(1);
  const Tensor convolved = halves_like(weight, {batch, width});
  const Tensor gate = floats_like(weight, {batch, width});
  product.launch("decode_convolution", DecodeConvolution{.taps = static_cast<int>(taps.size(0)),
                                                         .weight = taps.data_ptr<float>(),
                                                         .before = before.data_ptr(),
                                                         .convolved = convolved.data_ptr(),
                                                         .gate = gate.data_ptr<float>()});
  return {convolved, gate};
}

jit::KernelSource decode_cell_source(const CellDefinition& cell, const std::string& plan) {
  unsigned given = 0;
  for (const int input : cell.side_inputs) given |= 1u << input;
  jit::KernelSource source =
      kernel_source(kDecodeFile, fmt::format("decode_cell<{}, {}u, {}>", cell.type, given, plan));
  source.text = fmt::format("#include \"{}\"\n", kCellHeader) + source.text;
  const std::vector<jit::Header> headers = headers_of(cell);
  source.headers.insert(source.headers.end(), headers.begin(), headers.end());
  // As the engine's kernels of cells.
  source.options = {"--prec-div=false", "--prec-sqrt=false"};
  return source;
}

DecodeInput decode_cell_cuda(const Tensor& x, const Tensor& weight, const Tensor& bias,
                             const Tensor& recurrent, const Tensor& state,
                             const CellDefinition& cell, const Tensor& norm_weight, double epsilon,
                             const Tensor& gate) {
  const int64_t heads = weight.size(0), groups = weight.size(1) / weight.size(2);
  const Product product({x}, weight, groups, heads);
  const Tensor next = halves_like(weight, x.sizes()), squares = product.squares();
  product.launch(decode_cell_source(cell, product.plan.arguments()),
                 DecodeCell{.bias = bias.data_ptr<float>(),
                            .recurrent = recurrent.data_ptr<float>(),
                            .state = state.data_ptr<float>(),
                            .norm_weight = norm_weight.data_ptr<float>(),
                            .gate = gate.data_ptr<float>(),
                            .next = next.data_ptr(),
                            .squares = squares_to(squares)});
  return {next, squares, epsilon};
}

DecodeInput decode_residual_cuda(const DecodeInput& input, const Tensor& weight,
                                 const Tensor& scale, const Tensor& stream,
                                 const Tensor& norm_weight, double epsilon) {
  const Product product(input, weight, 1);
  const Tensor next = halves_like(stream, stream.sizes()), squares = product.squares();
  product.launch("decode_residual", DecodeResidual{.scale = scale.data_ptr<float>(),
                                                   .stream = stream.data_ptr<float>(),
                                                   .norm_weight = norm_weight.data_ptr<float>(),
                                                   .next = next.data_ptr(),
                                                   .squares = squares_to(squares)});
  return {next, squares, epsilon};
}

Tensor decode_swiglu_cuda(const DecodeInput& input, const Tensor& weight) {
  const Product product(input, weight, 2);
  const Tensor next = halves_like(weight, {input.x.size(0), weight.size(0) / 2});
  product.launch("decode_swiglu", DecodeSwiglu{next.data_ptr()});
  return next;
}

void decode_logits_cuda(const DecodeInput& input, const Tensor& weight, const Tensor& logits) {
  const Product product(input, weight, 1);
  product.launch("decode_logits", DecodeLogits{logits.data_ptr<float>()});
}

}  // namespace pararnn::ops
