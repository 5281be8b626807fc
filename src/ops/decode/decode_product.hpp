// How kernels that decode are launched, and the product that most of them begin with.
#pragma once

#include <fmt/format.h>
#include <torch/types.h>

#include <string>

#include "ops/cuda_kernels.hpp"
#include "ops/decode/decode_cuda.hpp"
#include "ops/decode/decode_problem.hpp"

namespace pararnn::ops {

inline torch::Tensor floats_like(const torch::Tensor& t, torch::IntArrayRef shape) {
  return torch::empty(shape, t.options().dtype(torch::kFloat));
}
inline torch::Tensor halves_like(const torch::Tensor& t, torch::IntArrayRef shape) {
  return torch::empty(shape, t.options().dtype(torch::kBFloat16));
}

/// A convolution's weights (taps,width), and the inputs before.
DecodeTaps taps_of(const torch::Tensor& taps, const torch::Tensor& before);
/// Memory for the parts of sums of squares (B,parts).
DecodeSquares squares_to(const torch::Tensor& squares);

/// Launches a kernel that may start before the one before it has ended. The source is made anew at
/// each launch, as decoding launches from a graph.
void launch_decode(const jit::KernelSource& source, const torch::Tensor& on, dim3 grid, int threads,
                   std::span<const std::byte> problem);
template <class Problem>
void launch_decode(const jit::KernelSource& source, const torch::Tensor& on, dim3 grid,
                   const Problem& problem, int threads = kDecodeThreads) {
  launch_decode(source, on, grid, threads, std::as_bytes(std::span(&problem, 1)));
}

/// A product of `groups` groups with its plan. Heads have parts of the input, or all of them all of
/// it, where it is as long as a row of weights.
struct Product {
  Product(const DecodeInput& input, const torch::Tensor& weight, int64_t groups, int64_t heads = 1);

  /// Memory for the sums of squares of what the product gives.
  torch::Tensor squares() const {
    return floats_like(on, {problem.batch, plan.parts_of_head() * problem.heads});
  }
  template <class End>
  void launch(const jit::KernelSource& source, const End& end) const {
    const dim3 grid(static_cast<unsigned>(plan.blocks),
                    static_cast<unsigned>(plan.row_blocks * problem.heads));
    launch_decode(source, on, grid, DecodeProblem<End>{problem, end});
  }
  /// A kernel of "ops/`file`".
  template <class End>
  void launch(const char* file, const char* kernel, const End& end) const {
    launch(kernel_source(file, fmt::format("{}<{}>", kernel, plan.arguments())), end);
  }

  torch::Tensor on;
  DecodePlan plan;
  DecodeProduct problem;
  torch::Tensor sums;  // of the library's product
};

}  // namespace pararnn::ops
