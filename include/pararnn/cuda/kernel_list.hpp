// The scan's kernels as plain values: which template of this folder, with which arguments, on how
// many threads. For the host; what compiles and launches them is a launcher (launcher.hpp).
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "pararnn/cuda/problem.hpp"

namespace pararnn::cuda {

/// Neighbouring channels that a thread holds, and that a load brings: two for each of two threads
/// where numbers of two bytes are to come through the forward pass's ring.
struct Width {
  int thread = 1, load = 1;
  auto operator<=>(const Width&) const = default;
};

struct Kernel {
  enum Name {
    kForwardPass,
    kDecodeStep,
    kForwardScan,
    kForwardCorrect,
    kForwardMismatch,
    kBackwardPass,
    kBackwardSections,
    kBackwardScan,
    kBackwardCorrect,
    kBackwardMismatch,
    kSumParts,
  };
  Name name;
  Width width = {};            // of passes and steps
  ForwardPass forward = {};    // of kForwardPass
  BackwardPass backward = {};  // of kBackwardPass
  bool starts = false;         // of what depends on it: states may start anew within a row
  int groups = 1;              // of kBackwardSections: warps that share the steps of a column

  auto operator<=>(const Kernel&) const = default;
};

/// The header that defines the kernel.
inline std::string kernel_header(const Kernel& kernel) {
  constexpr const char* kFiles[] = {"forward_pass",      "decode",           "forward_correct",
                                    "forward_correct",   "forward_correct",  "backward_pass",
                                    "backward_sections", "backward_correct", "backward_correct",
                                    "backward_correct",  "backward_pass"};
  return "pararnn/cuda/" + std::string(kFiles[kernel.name]) + ".hpp";
}

/// The kernel in C++: a template of cell, storage and what else it takes.
inline std::string kernel_expression(const Kernel& kernel, std::string_view cell,
                                     std::string_view storage) {
  constexpr const char* kNames[] = {"forward_pass",      "decode_step",      "forward_scan",
                                    "forward_correct",   "forward_mismatch", "backward_pass",
                                    "backward_sections", "backward_scan",    "backward_correct",
                                    "backward_mismatch", "sum_parts"};
  constexpr const char* kForward[] = {"kGiven", "kBurnIn", "kMap"};
  constexpr const char* kBackward[] = {"kGiven", "kBurnIn", "kMap"};
  const std::string space = "pararnn::cuda::";
  std::string text =
      space + kNames[kernel.name] + "<" + std::string(cell) + ", " + std::string(storage);
  const std::string thread = std::string(", ") + std::to_string(kernel.width.thread);
  if (kernel.name == Kernel::kForwardPass) {
    text += thread + ", " + std::to_string(kernel.width.load) + ", " + space +
            "ForwardPass::" + kForward[static_cast<int>(kernel.forward)];
  } else if (kernel.name == Kernel::kBackwardPass) {
    text += thread + ", " + space + "BackwardPass::" + kBackward[static_cast<int>(kernel.backward)];
  } else if (kernel.name == Kernel::kBackwardSections) {
    text += ", " + std::to_string(kernel.groups);
  } else if (kernel.name == Kernel::kDecodeStep) {
    text += thread;
  }
  if (kernel.name == Kernel::kForwardPass || kernel.name == Kernel::kForwardCorrect ||
      kernel.name == Kernel::kBackwardPass || kernel.name == Kernel::kBackwardScan ||
      kernel.name == Kernel::kBackwardCorrect) {
    text += kernel.starts ? ", true" : ", false";
  }
  return text + ">";
}

/// What a kernel is launched on. A cooperative grid has as many of the blocks as the device holds
/// at once, at most kCooperativeBlocks a multiprocessor.
struct Grid {
  Int blocks = 1, rows_of_blocks = 1;
  int threads = kThreadsPerBlock, rows_of_threads = 1;
  bool cooperative = false;
};

/// The grid of a kernel of a cell with so many parameters.
inline Grid grid_of(const Kernel& kernel, const Chunking& size, int parameters,
                    int multiprocessors) {
  const auto divide_up = [](Int a, Int b) { return (a + b - 1) / b; };
  const auto blocks_for = [&](Int threads) { return divide_up(threads, kThreadsPerBlock); };
  const Int columns = size.batch * size.channels, lanes = columns * size.chunks;
  switch (kernel.name) {
    case Kernel::kForwardPass:
    case Kernel::kBackwardPass:
      return {.blocks = blocks_for(lanes / kernel.width.thread)};
    case Kernel::kBackwardSections:
      return {.blocks = divide_up(columns, kWarp), .threads = kernel.groups * kWarp};
    case Kernel::kForwardScan:
    case Kernel::kBackwardScan:
      return {.blocks = blocks_for(columns * kWarp)};
    case Kernel::kForwardCorrect:
    case Kernel::kBackwardCorrect:
      // Most of the time it finds that nothing is to be corrected, and its barrier costs the more
      // the more blocks there are.
      return {.blocks = std::min<Int>(blocks_for(lanes), multiprocessors * kCooperativeBlocks),
              .cooperative = true};
    case Kernel::kForwardMismatch:
    case Kernel::kBackwardMismatch:
      return {.blocks = blocks_for(lanes)};
    case Kernel::kSumParts:
      return {.blocks =
                  blocks_for(parameters * size.channels * sum_rows(size.batch * size.chunks))};
    case Kernel::kDecodeStep:
      break;
  }
  // Threads enough to hide the memory's latency; with more rows, each takes several.
  constexpr Int kThreadsPerMultiprocessor = 2048, kMostRowsOfBlocks = (1 << 16) - 1;
  const Int groups = size.channels / kernel.width.thread;
  const auto across = static_cast<int>(
      std::bit_floor(static_cast<std::uint64_t>(std::min<Int>(groups, kThreadsPerBlock))));
  const int down = kThreadsPerBlock / across;
  const Int rows_at_once =
      std::clamp<Int>(multiprocessors * kThreadsPerMultiprocessor / groups, 1, size.batch);
  return {.blocks = divide_up(groups, across),
          .rows_of_blocks = std::min<Int>(divide_up(rows_at_once, down), kMostRowsOfBlocks),
          .threads = across,
          .rows_of_threads = down};
}

}  // namespace pararnn::cuda
