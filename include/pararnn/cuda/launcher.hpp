// What the drivers of both directions share: who launches their kernels, where their arrays lie,
// and how what was found is read.
#pragma once

#include <bit>
#include <concepts>
#include <span>
#include <vector>

#include "pararnn/cuda/kernel_list.hpp"
#include "pararnn/statistics.hpp"

namespace pararnn::cuda {

static_assert(kChunkUnit % kCheckpointInterval == 0);

/// Compiles and launches the kernels of one cell and storage, one behind another, without waiting
/// for them: on a GPU src/ops/cuda/, in tests threads of the host.
template <class L>
concept Launcher = requires(const L& launcher, const Kernel& kernel, std::span<const Kernel> list,
                            const ForwardProblem& forward, const BackwardProblem& backward,
                            const Counters* counters) {
  { launcher.multiprocessors() } -> std::convertible_to<int>;
  launcher.prepare(list);  // will be launched; may compile them side by side
  launcher.launch(kernel, forward);
  launcher.launch(kernel, backward);
  { launcher.read(counters) } -> std::same_as<Counters>;  // waits
};

/// What a workspace depends on beside the sizes of the tensors.
struct CellSizes {
  Int state, params;
  Int arithmetic_bytes;
};

/// Arrays one behind another in a piece of memory; with none, only their size is counted.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
  /// Room for `bytes`.
  void* add(Int bytes) {
    constexpr Int kAlignment = 256;
    void* const place = memory_ ? memory_ + size_ : nullptr;
    size_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return place;
  }
  Int size() const { return size_; }

 private:
  unsigned char* memory_;
  Int size_ = 0;
};

/// Launches the kernels of a way, in their order. Those that will be needed `later` are prepared
/// with them.
template <Launcher L, class Problem>
void launch_all(const L& launcher, const std::vector<Kernel>& kernels, const Problem& problem,
                std::span<const Kernel> later = {}) {
  if (later.empty()) {
    launcher.prepare(kernels);
  } else {
    std::vector<Kernel> all = kernels;
    all.insert(all.end(), later.begin(), later.end());
    launcher.prepare(all);
  }
  for (const Kernel& kernel : kernels) launcher.launch(kernel, problem);
}

/// What the pass that `problem` describes did, under `plan`. Looks at its workspace alone, so the
/// tensors may be gone. Waits for the pass.
template <Launcher L, class Problem>
Statistics read_statistics(const L& launcher, const Problem& problem, const Plan& plan) {
  Statistics statistics{.plan = plan, .columns = problem.size.batch * problem.size.channels};
  if (plan.chunks == 1) return statistics;
  constexpr bool kForward = std::same_as<Problem, ForwardProblem>;
  launcher.launch({kForward ? Kernel::kForwardMismatch : Kernel::kBackwardMismatch}, problem);
  const Counters found = launcher.read(problem.counters);
  statistics.largest_mismatch = std::bit_cast<float>(found.largest_mismatch_bits);
  // Newton's own comes before the kernel that counts.
  statistics.newton_iterations = found.newton_iterations + (plan.way == Way::kNewton ? 1 : 0);
  statistics.columns_corrected = found.columns_corrected;
  statistics.columns_repaired = found.columns_repaired;
  return statistics;
}

}  // namespace pararnn::cuda
