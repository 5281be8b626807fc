#include "kernels/cuda/scan_launch.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <mutex>

#include "base/error.hpp"
#include "cells/cuda_kernels.hpp"
#include "jit/kernel.hpp"

namespace pararnn::cuda {
namespace {

using torch::headeronly::ScalarType;

/// A kernel's place in the memory of the process; its mutex is held while the kernel is made.
struct Slot {
  std::mutex mutex;
  std::atomic<const jit::Kernel*> kernel = nullptr;
  int blocks_per_multiprocessor = 0;  // written before `kernel`
};

Slot& find_slot(int device, const Kernel& kernel, const CellDefinition& cell, ScalarType type) {
  // Never destroyed: other threads may launch until the process ends.
  using Key = std::tuple<int, Kernel, const CellDefinition*, ScalarType>;
  static auto& slots = *new std::map<Key, Slot>;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  return slots[{device, kernel, &cell, type}];
}

/// Compiles and loads the kernel for the current device, unless that was done.
void load(Slot& slot, const Kernel& kernel, const CellDefinition& cell, ScalarType type) {
  if (slot.kernel) return;
  const std::lock_guard lock(slot.mutex);
  if (slot.kernel) return;
  const jit::Kernel& loaded = jit::get_kernel(cuda_kernel(kernel, cell, storage_name(type)));
  slot.blocks_per_multiprocessor = jit::blocks_per_multiprocessor(loaded, kThreadsPerBlock);
  slot.kernel = &loaded;
}

}  // namespace

std::string_view storage_name(ScalarType type) {
  switch (type) {
    case ScalarType::Half:
      return "pararnn::cuda::Float16";
    case ScalarType::BFloat16:
      return "pararnn::cuda::BFloat16";
    case ScalarType::Float:
      return "float";
    default:
      return "double";
  }
}

ScanLauncher::ScanLauncher(const CellDefinition& cell, ScalarType type, int device,
                           cudaStream_t stream)
    : cell_(cell),
      type_(type),
      device_(device),
      stream_(stream),
      multiprocessors_(jit::multiprocessors_of(device)) {}

void ScanLauncher::prepare(std::span<const Kernel> kernels) const {
  if (kernels.size() == 1) return;  // as it is launched
  std::vector<std::future<void>> compiling;
  for (const Kernel& kernel : kernels) {
    Slot& slot = find_slot(device_, kernel, cell_, type_);
    if (slot.kernel) continue;
    compiling.push_back(std::async(std::launch::async, [this, &slot, kernel] {
      jit::check_cuda(jit::cuda().cudaSetDevice(device_), "use a GPU");
      load(slot, kernel, cell_, type_);
    }));
  }
  for (std::future<void>& kernel : compiling) kernel.get();
}

template <class Problem>
void ScanLauncher::launch_any(const Kernel& kernel, const Problem& problem) const {
  Grid grid = grid_of(kernel, problem.size, cell_.params, multiprocessors_);
  if (grid.blocks == 0) return;  // the gradient of no parameters
  Slot& slot = find_slot(device_, kernel, cell_, type_);
  load(slot, kernel, cell_, type_);
  constexpr Int kMostBlocks = (Int(1) << 31) - 1;
  require(grid.blocks <= kMostBlocks,
          "scan: {} columns times chunks are more than a GPU takes at once; split the batch",
          problem.size.batch * problem.size.channels * problem.size.chunks);
  if (grid.cooperative) {
    grid.blocks = std::min<Int>(grid.blocks, multiprocessors_ * slot.blocks_per_multiprocessor);
  }
  jit::launch(
      *slot.kernel,
      {.grid = dim3(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.rows_of_blocks)),
       .block =
           dim3(static_cast<unsigned>(grid.threads), static_cast<unsigned>(grid.rows_of_threads)),
       .stream = stream_,
       .cooperative = grid.cooperative},
      problem);
}

void ScanLauncher::launch(const Kernel& kernel, const ForwardProblem& problem) const {
  launch_any(kernel, problem);
}

void ScanLauncher::launch(const Kernel& kernel, const BackwardProblem& problem) const {
  launch_any(kernel, problem);
}

Counters ScanLauncher::read(const Counters* counters) const {
  Counters result;
  const char* action = "read the statistics of a scan";
  jit::check_cuda(jit::cuda().cudaMemcpyAsync(&result, counters, sizeof result,
                                              cudaMemcpyDeviceToHost, stream_),
                  action);
  jit::check_cuda(jit::cuda().cudaStreamSynchronize(stream_), action);
  return result;
}

}  // namespace pararnn::cuda
