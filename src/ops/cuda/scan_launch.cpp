#include "ops/cuda/scan_launch.hpp"

#include <algorithm>
#include <map>
#include <mutex>

#include "base/error.hpp"
#include "jit/kernel.hpp"
#include "pararnn/cells.hpp"

namespace pararnn::cuda {
namespace {

std::string storage_name(torch::ScalarType type) {
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

/// "pararnn::cuda::NAME<pararnn::Gru, float, EXTRA>" of the header that has it.
const jit::Kernel& kernel_of(const std::string& header, const std::string& name,
                             const std::string& cell, torch::ScalarType type,
                             const std::string& extra) {
  // The name is built and looked up at every launch; what it costs is a map's walk.
  static std::mutex mutex;
  static std::map<std::tuple<int, std::string, std::string, torch::ScalarType, std::string>,
                  const jit::Kernel*>
      kernels;
  int device = 0;
  jit::check_cuda(cudaGetDevice(&device), "tell the current device");
  const std::lock_guard lock(mutex);
  const jit::Kernel*& kernel = kernels[{device, name, cell, type, extra}];
  if (!kernel) {
    const CellInfo& info = find_cell(cell);
    kernel = &jit::get_kernel(
        {fmt::format("#include \"pararnn/cells/{}.hpp\"\n#include \"pararnn/cuda/{}.hpp\"\n", cell,
                     header),
         fmt::format("pararnn::cuda::{}<pararnn::{}, {}{}>", name, info.type, storage_name(type),
                     extra),
         {},
         // A division to two units in the last place, without a branch.
         {"--prec-div=false", "--prec-sqrt=false"}});
  }
  return *kernel;
}

unsigned blocks_for(Int threads) {
  return static_cast<unsigned>((threads + kThreadsPerBlock - 1) / kThreadsPerBlock);
}

Int columns_of(const Chunking& size) { return size.batch * size.channels; }

template <class... Arguments>
void launch_threads(const jit::Kernel& kernel, Int threads, cudaStream_t stream,
                    const Arguments&... arguments) {
  jit::launch(
      kernel,
      {.grid = dim3(blocks_for(threads)), .block = dim3(kThreadsPerBlock), .stream = stream},
      arguments...);
}

/// A grid that is on the device at once, with at most a thread a lane.
template <class Problem>
void launch_cooperative(const jit::Kernel& kernel, const Problem& problem, cudaStream_t stream) {
  const unsigned most = static_cast<unsigned>(
      multiprocessor_count() * jit::blocks_per_multiprocessor(kernel, kThreadsPerBlock));
  const unsigned blocks =
      std::min(most, blocks_for(columns_of(problem.size) * problem.size.chunks));
  jit::launch(kernel,
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

void ScanLauncher::forward_pass(const ForwardProblem& problem, ForwardMode mode) const {
  const std::string extra =
      fmt::format(", {}, {}, {}, {}", width_, mode.burn_in, mode.write, mode.linearize);
  launch_threads(kernel_of("forward", "forward_pass", cell_, type_, extra),
                 columns_of(problem.size) / width_ * problem.size.chunks, stream_, problem);
}

void ScanLauncher::forward_scan(const ForwardProblem& problem) const {
  launch_threads(kernel_of("forward", "forward_scan", cell_, type_, ""), columns_of(problem.size),
                 stream_, problem);
}

void ScanLauncher::forward_correct(const ForwardProblem& problem) const {
  launch_cooperative(kernel_of("forward", "forward_correct", cell_, type_, ""), problem, stream_);
}

void ScanLauncher::forward_mismatch(const ForwardProblem& problem) const {
  launch_threads(kernel_of("forward", "forward_mismatch", cell_, type_, ""),
                 columns_of(problem.size) * problem.size.chunks, stream_, problem);
}

void ScanLauncher::backward_pass(const BackwardProblem& problem, BackwardMode mode) const {
  const char* names[] = {"kGiven", "kBurnIn", "kMap"};
  const std::string extra =
      fmt::format(", {}, pararnn::cuda::BackwardMode::{}", width_, names[static_cast<int>(mode)]);
  launch_threads(kernel_of("backward", "backward_pass", cell_, type_, extra),
                 columns_of(problem.size) / width_ * problem.size.chunks, stream_, problem);
}

void ScanLauncher::backward_scan(const BackwardProblem& problem) const {
  launch_threads(kernel_of("backward", "backward_scan", cell_, type_, ""), columns_of(problem.size),
                 stream_, problem);
}

void ScanLauncher::backward_correct(const BackwardProblem& problem) const {
  launch_cooperative(kernel_of("backward", "backward_correct", cell_, type_, ""), problem, stream_);
}

void ScanLauncher::backward_mismatch(const BackwardProblem& problem) const {
  launch_threads(kernel_of("backward", "backward_mismatch", cell_, type_, ""),
                 columns_of(problem.size) * problem.size.chunks, stream_, problem);
}

void ScanLauncher::sum_parts(const BackwardProblem& problem, void* dw) const {
  launch_threads(kernel_of("backward", "sum_parts", cell_, type_, ""),
                 find_cell(cell_).params * problem.size.channels, stream_, problem, dw);
}

}  // namespace pararnn::cuda
