#include "ops/cuda/scan_launch.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <mutex>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "jit/kernel.hpp"
#include "pararnn/plan.hpp"

namespace pararnn::cuda {
namespace {

std::string_view storage_name(torch::ScalarType type) {
  switch (type) {
    case torch::kFloat16:
      return "pararnn::cuda::Float16";
    case torch::kBFloat16:
      return "pararnn::cuda::BFloat16";
    case torch::kFloat32:
      return "float";
    default:
      return "double";
  }
}

/// A kernel template of include/pararnn/cuda/: its header, its name, and its arguments behind cell
/// and storage. A plain value, so that finding a kernel that was launched before costs no text.
struct KernelTemplate {
  const char *header, *name;
  enum Extra { kNone, kWidth, kForwardMode, kBackwardMode } extra = kNone;
  Width width = {};
  ForwardMode forward = {};
  BackwardMode backward = {};

  auto operator<=>(const KernelTemplate&) const = default;

  std::string arguments() const {
    constexpr const char* kModes[] = {"kGiven", "kBurnIn", "kMap"};
    switch (extra) {
      case kWidth:
        return fmt::format(", {}", width.thread);
      case kForwardMode:
        return fmt::format(", {}, {}, {}, {}, {}", width.thread, width.load, forward.burn_in,
                           forward.write, forward.linearize);
      case kBackwardMode:
        return fmt::format(", {}, pararnn::cuda::BackwardMode::{}", width.thread,
                           kModes[static_cast<int>(backward)]);
      default:
        return "";
    }
  }
};

struct LoadedKernel {
  const jit::Kernel* kernel = nullptr;
  int blocks_per_multiprocessor = 0;
};

const LoadedKernel& kernel_of(const KernelTemplate& wanted, const CellDefinition& cell,
                              torch::ScalarType type) {
  static std::mutex mutex;
  // Never destroyed: other threads may launch until the process ends.
  using Key = std::tuple<int, KernelTemplate, const CellDefinition*, torch::ScalarType>;
  static auto& kernels = *new std::map<Key, LoadedKernel>;
  int device = 0;
  jit::check_cuda(cudaGetDevice(&device), "tell the current device");
  const std::lock_guard lock(mutex);
  LoadedKernel& loaded = kernels[{device, wanted, &cell, type}];
  if (!loaded.kernel) {
    loaded.kernel = &jit::get_kernel(
        {fmt::format("#include \"pararnn_cell.hpp\"\n#include \"pararnn/cuda/{}.hpp\"\n",
                     wanted.header),
         fmt::format("pararnn::cuda::{}<{}, {}{}>", wanted.name, cell.type, storage_name(type),
                     wanted.arguments()),
         headers_of(cell),
         // A division to two units in the last place, without a branch.
         {"--prec-div=false", "--prec-sqrt=false"}});
    loaded.blocks_per_multiprocessor =
        jit::blocks_per_multiprocessor(*loaded.kernel, kThreadsPerBlock);
  }
  return loaded;
}

unsigned blocks_for(Int threads) {
  const Int blocks = detail::divide_up(threads, kThreadsPerBlock);
  constexpr Int kMostBlocks = (Int(1) << 31) - 1;
  require(blocks <= kMostBlocks,
          "scan: {} columns times chunks are more than a GPU takes at once; split the batch",
          threads);
  return static_cast<unsigned>(blocks);
}

Int columns_of(const Chunking& size) { return size.batch * size.channels; }

template <class... Arguments>
void launch_threads(const LoadedKernel& loaded, Int threads, cudaStream_t stream,
                    const Arguments&... arguments) {
  jit::launch(
      *loaded.kernel,
      {.grid = dim3(blocks_for(threads)), .block = dim3(kThreadsPerBlock), .stream = stream},
      arguments...);
}

/// A grid that is on the device at once, with at most a thread a lane. Most of the time it finds
/// that nothing is to be corrected, and its barrier costs the more the more blocks there are.
template <class Problem>
void launch_cooperative(const LoadedKernel& loaded, const Problem& problem, cudaStream_t stream) {
  const auto most = static_cast<unsigned>(
      multiprocessor_count() * std::min(loaded.blocks_per_multiprocessor, kCooperativeBlocks));
  const unsigned blocks =
      std::min(most, blocks_for(columns_of(problem.size) * problem.size.chunks));
  jit::launch(*loaded.kernel,
              {.grid = dim3(blocks),
               .block = dim3(kThreadsPerBlock),
               .stream = stream,
               .cooperative = true},
              problem);
}

}  // namespace

int multiprocessor_count() {
  int device = 0, count = 0;
  jit::check_cuda(cudaGetDevice(&device), "tell the current device");
  jit::check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
                  "count the multiprocessors");
  return count;
}

ScanLauncher::ScanLauncher(const std::string& cell, torch::ScalarType type, Width width,
                           cudaStream_t stream)
    : cell_(find_cell(cell)), type_(type), width_(width), stream_(stream) {}

void ScanLauncher::forward_pass(const ForwardProblem& problem, ForwardMode mode) const {
  const KernelTemplate kernel{"forward", "forward_pass", KernelTemplate::kForwardMode, width_,
                              mode};
  launch_threads(kernel_of(kernel, cell_, type_),
                 columns_of(problem.size) / width_.thread * problem.size.chunks, stream_, problem);
}

void ScanLauncher::decode_step(const ForwardProblem& problem) const {
  // Threads enough to hide the memory's latency; with more rows, each takes several.
  constexpr Int kThreadsPerMultiprocessor = 2048, kMostBlocksOfRows = (1 << 16) - 1;
  const Int groups = problem.size.channels / width_.thread;
  const auto across = static_cast<unsigned>(
      std::bit_floor(static_cast<uint64_t>(std::min<Int>(groups, kThreadsPerBlock))));
  const unsigned down = kThreadsPerBlock / across;
  const Int rows_at_once = std::clamp<Int>(
      multiprocessor_count() * kThreadsPerMultiprocessor / groups, 1, problem.size.batch);
  const Int blocks_of_rows =
      std::min<Int>(detail::divide_up(rows_at_once, down), kMostBlocksOfRows);
  const LoadedKernel& loaded =
      kernel_of({"decode", "decode_step", KernelTemplate::kWidth, width_}, cell_, type_);
  jit::launch(*loaded.kernel,
              {.grid = dim3(static_cast<unsigned>(detail::divide_up(groups, across)),
                            static_cast<unsigned>(blocks_of_rows)),
               .block = dim3(across, down),
               .stream = stream_},
              problem);
}

void ScanLauncher::forward_scan(const ForwardProblem& problem) const {
  launch_threads(kernel_of({"forward_correct", "forward_scan"}, cell_, type_),
                 columns_of(problem.size) * kWarp, stream_, problem);
}

void ScanLauncher::forward_correct(const ForwardProblem& problem) const {
  launch_cooperative(kernel_of({"forward_correct", "forward_correct"}, cell_, type_), problem,
                     stream_);
}

void ScanLauncher::forward_mismatch(const ForwardProblem& problem) const {
  launch_threads(kernel_of({"forward_correct", "forward_mismatch"}, cell_, type_),
                 columns_of(problem.size) * problem.size.chunks, stream_, problem);
}

void ScanLauncher::backward_pass(const BackwardProblem& problem, BackwardMode mode) const {
  const KernelTemplate kernel{
      "backward", "backward_pass", KernelTemplate::kBackwardMode, width_, {}, mode};
  launch_threads(kernel_of(kernel, cell_, type_),
                 columns_of(problem.size) / width_.thread * problem.size.chunks, stream_, problem);
}

void ScanLauncher::backward_scan(const BackwardProblem& problem) const {
  launch_threads(kernel_of({"backward_correct", "backward_scan"}, cell_, type_),
                 columns_of(problem.size) * kWarp, stream_, problem);
}

void ScanLauncher::backward_correct(const BackwardProblem& problem) const {
  launch_cooperative(kernel_of({"backward_correct", "backward_correct"}, cell_, type_), problem,
                     stream_);
}

void ScanLauncher::backward_mismatch(const BackwardProblem& problem) const {
  launch_threads(kernel_of({"backward_correct", "backward_mismatch"}, cell_, type_),
                 columns_of(problem.size) * problem.size.chunks, stream_, problem);
}

void ScanLauncher::sum_parts(const BackwardProblem& problem) const {
  launch_threads(
      kernel_of({"backward", "sum_parts"}, cell_, type_),
      cell_.params * problem.size.channels * sum_rows(problem.size.batch * problem.size.chunks),
      stream_, problem);
}

}  // namespace pararnn::cuda
