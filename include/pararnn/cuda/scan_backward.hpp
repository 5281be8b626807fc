// The backward pass on the GPU, as its host sees it: the kernels of each way (docs/method.md).
//
//   sequential   one chunk, whose steps the warps of a block share where columns are few, and the
//                sum of the parameters' gradient over rows
//   speculative  the adjoint at a chunk's end by a burn-in that starts beyond it from zero; run all
//                chunks, writing gradients
//   newton       the affine maps of all chunks; a scan over them gives the adjoints at their ends;
//                run all chunks, writing gradients
//
// and then, where there are several chunks, one kernel that verifies, corrects, repairs and sums.
#pragma once

#include "pararnn/cuda/launcher.hpp"

namespace pararnn::cuda {

/// Most warps of a block that share the steps of a column, and the states of a cell for whose maps
/// they have room.
inline constexpr int kMostGroups = 8, kMostStatesOfGroups = 2;

/// How many do in the run in order: as many as the machine holds at once, or 1, where each thread
/// runs a column of its own.
inline int backward_groups(const Chunking& size, const CellSizes& cell, bool starts,
                           int multiprocessors) {
  const bool possible =
      !starts && cell.state <= kMostStatesOfGroups && cell.arithmetic_bytes == sizeof(float);
  if (!possible) return 1;
  const Int warps = (size.batch * size.channels + kWarp - 1) / kWarp;
  int groups = 1;
  const auto fill = [&](int more) {
    const int blocks = section_warps(static_cast<int>(cell.state)) / more;
    return warps <= Int(blocks) * multiprocessors && more * kCheckpointInterval <= size.steps;
  };
  while (groups < kMostGroups && fill(2 * groups)) groups *= 2;
  return groups;
}

/// The kernels of a way, in the order of their launches. `starts`: states may start anew within a
/// row. `groups`: of the run in order.
inline std::vector<Kernel> backward_kernels(Way way, bool starts, int groups) {
  const auto pass = [&](BackwardPass how) {
    return Kernel{Kernel::kBackwardPass, {}, {}, how, starts};
  };
  const Kernel scan{Kernel::kBackwardScan, {}, {}, {}, starts};
  const Kernel correct{Kernel::kBackwardCorrect, {}, {}, {}, starts};
  std::vector<Kernel> kernels;
  switch (way) {
    case Way::kSequential:
      kernels.push_back(groups > 1 ? Kernel{.name = Kernel::kBackwardSections, .groups = groups}
                                   : pass(BackwardPass::kGiven));
      kernels.push_back({Kernel::kSumParts});
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

/// Gradients of a recurrence of a cell. `problem` names tensors, tolerance, the workspace, and how
/// the plan cuts the sequence.
template <Launcher L>
void scan_backward(const L& launcher, const BackwardProblem& problem, const CellSizes& cell,
                   Way way) {
  if (problem.size.chunks == 1) way = Way::kSequential;
  const bool starts = !problem.sequences.none();
  const int groups = backward_groups(problem.size, cell, starts, launcher.multiprocessors());
  launch_all(launcher, backward_kernels(way, starts, groups), problem);
}

}  // namespace pararnn::cuda
