// The backward pass on the GPU, as its host sees it: the kernels of each way (docs/method.md).
//
//   sequential   one chunk, and the sum of the parameters' gradient over rows
//   speculative  the adjoint at a chunk's end by a burn-in that starts beyond it from zero; run all
//                chunks, writing gradients
//   newton       the affine maps of all chunks; a scan over them gives the adjoints at their ends;
//                run all chunks, writing gradients
//
// and then, where there are several chunks, one kernel that verifies, corrects, repairs and sums.
#pragma once

#include "pararnn/cuda/launcher.hpp"

namespace pararnn::cuda {

/// The kernels of a way, in the order of their launches. `starts`: states may start anew within a
/// row.
inline std::vector<Kernel> backward_kernels(Way way, bool starts) {
  const auto pass = [&](BackwardPass how) {
    return Kernel{Kernel::kBackwardPass, {}, {}, how, starts};
  };
  const Kernel scan{Kernel::kBackwardScan, {}, {}, {}, starts};
  const Kernel correct{Kernel::kBackwardCorrect, {}, {}, {}, starts};
  std::vector<Kernel> kernels;
  switch (way) {
    case Way::kSequential:
      kernels.insert(kernels.end(), {pass(BackwardPass::kGiven), {Kernel::kSumParts}});
      break;
    case Way::kSpeculative:
      kernels.insert(kernels.end(), {pass(BackwardPass::kBurnIn), correct});
      break;
    case Way::kNewton:
      kernels.insert(kernels.end(),
                     {pass(BackwardPass::kMap), scan, pass(BackwardPass::kGiven), correct});
      break;
  }
  return kernels;
}

/// Places the arrays of a pass of problem.size in `memory`, aligned to 256 bytes. Returns how many
/// bytes they take; without memory that is all.
inline Int place_workspace(BackwardProblem& problem, const CellSizes& cell, void* memory) {
  const Chunking& size = problem.size;
  const Int columns = size.batch * size.channels;
  const Int number = columns * size.chunks * cell.arithmetic_bytes;  // one a lane
  const Int map = size.chunks > 1 ? number : 0;
  Workspace workspace(memory);
  problem.end = workspace.add(number * cell.state);
  problem.start = workspace.add(number * cell.state);
  problem.peak = workspace.add(number);
  problem.map_matrix = workspace.add(map * cell.state * cell.state);
  problem.map_offset = workspace.add(map * cell.state);
  problem.dw_parts = workspace.add(number * cell.params);
  problem.failing = static_cast<unsigned char*>(workspace.add(columns));
  const bool may_be_wrong = size.chunks > 1 && problem.sequences.offsets;
  problem.wrong_offsets =
      static_cast<unsigned*>(workspace.add(may_be_wrong ? Int(sizeof(unsigned)) : 0));
  problem.counters = static_cast<Counters*>(workspace.add(sizeof(Counters)));
  return workspace.size();
}

/// Gradients of a recurrence. `problem` names tensors, tolerance, the workspace, and how the plan
/// cuts the sequence.
template <Launcher L>
void scan_backward(const L& launcher, const BackwardProblem& problem, Way way) {
  if (problem.size.chunks == 1) way = Way::kSequential;
  launch_all(launcher, backward_kernels(way, !problem.sequences.none()), problem);
}

}  // namespace pararnn::cuda
