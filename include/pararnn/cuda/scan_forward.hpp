// The forward pass on the GPU, as its host sees it: the kernels of each way (docs/method.md).
//
//   sequential   one chunk
//   speculative  b_p by a burn-in that starts early from zero; run all chunks, writing outputs
//   newton       the same without outputs; correct every b_p; run all chunks, writing outputs
//
// and then, where there are several chunks, one kernel that verifies, corrects and repairs.
#pragma once

#include "pararnn/cuda/launcher.hpp"

namespace pararnn::cuda {

/// The kernels of a way, in the order of their launches. `decodes`: one step, without checkpoints.
/// `starts`: states may start anew within a row.
inline std::vector<Kernel> forward_kernels(Way way, Width width, bool decodes, bool starts) {
  if (decodes) return {{Kernel::kDecodeStep, {width.thread}}};
  const auto pass = [&](ForwardPass how) {
    return Kernel{Kernel::kForwardPass, width, how, {}, starts};
  };
  const Kernel correct{Kernel::kForwardCorrect, {}, {}, {}, starts};
  std::vector<Kernel> kernels;
  switch (way) {
    case Way::kSequential:
      kernels.push_back(pass(ForwardPass::kGiven));
      break;
    case Way::kSpeculative:
      kernels.insert(kernels.end(), {pass(ForwardPass::kBurnIn), correct});
      break;
    case Way::kNewton:
      kernels.insert(
          kernels.end(),
          {pass(ForwardPass::kMap), {Kernel::kForwardScan}, pass(ForwardPass::kGiven), correct});
      break;
  }
  return kernels;
}

/// Two channels a thread take fewer instructions than one a thread, but are half as many warps to
/// hide each other's latency: up to so many blocks on a multiprocessor, one a thread is faster.
inline constexpr int kFewBlocks = 1;

/// How many channels a thread takes, where a load may bring `pair` of them.
inline Width forward_width(const Chunking& size, int pair, bool decodes, int multiprocessors) {
  const Int lanes = size.batch * size.channels * size.chunks;
  const bool few = lanes <= Int(kFewBlocks) * kThreadsPerBlock * pair * multiprocessors;
  return {few && !decodes ? 1 : pair, pair};
}

/// How many neighbouring channels of a tensor can be read as one word that the hardware copies by
/// itself: two of two bytes each where they lie in pairs everywhere, or 1.
inline int pair_of(const TensorView& view, int bytes) {
  const bool even = view.batch_stride % 2 == 0 && view.step_stride % 2 == 0 &&
                    view.component_stride % 2 == 0 && view.head_stride % 2 == 0 &&
                    view.head_width % 2 == 0;
  return bytes == 2 && even && reinterpret_cast<std::uintptr_t>(view.data) % 4 == 0 ? 2 : 1;
}

/// Places the arrays of a pass of problem.size in `memory`, aligned to 256 bytes. Returns how many
/// bytes they take; without memory that is all.
inline Int place_workspace(ForwardProblem& problem, const CellSizes& cell, void* memory) {
  const Chunking& size = problem.size;
  const Int columns = size.chunks > 1 ? size.batch * size.channels : 0;
  const Int boundary = columns * size.chunks * cell.state * cell.arithmetic_bytes;
  Workspace workspace(memory);
  problem.start = workspace.add(boundary);
  problem.end = workspace.add(boundary);
  problem.jacobian = workspace.add(boundary * cell.state);
  problem.failing = static_cast<unsigned char*>(workspace.add(columns));
  const bool may_be_wrong = size.chunks > 1 && problem.sequences.offsets;
  problem.wrong_offsets =
      static_cast<unsigned*>(workspace.add(may_be_wrong ? Int(sizeof(unsigned)) : 0));
  problem.counters = static_cast<Counters*>(workspace.add(sizeof(Counters)));
  return workspace.size();
}

/// Runs a cell's recurrence. `problem` names tensors, tolerance, the workspace, and how the plan
/// cuts the sequence. `pair` is that of u, and no more than that of y. `later`: the kernels of the
/// backward pass, if one will follow; compiled one after the other, the two would take twice as
/// long.
template <Launcher L>
void scan_forward(const L& launcher, ForwardProblem problem, Way way, int pair,
                  std::span<const Kernel> later = {}) {
  if (problem.size.chunks == 1) way = Way::kSequential;
  problem.have_jacobians = way == Way::kNewton;
  const bool starts = !problem.sequences.none();
  const bool decodes = problem.size.steps == 1 && !problem.checkpoints && !starts;
  const Width width = forward_width(problem.size, pair, decodes, launcher.multiprocessors());
  launch_all(launcher, forward_kernels(way, width, decodes, starts), problem, later);
}

}  // namespace pararnn::cuda
