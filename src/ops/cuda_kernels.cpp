#include "ops/cuda_kernels.hpp"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "jit/kernel.hpp"

namespace pararnn::ops {

std::vector<jit::Header> embedded_kernels();  // made by the build

namespace {

/// The kernel for the current device, made when it is first asked for.
const jit::Kernel& find_kernel(int device, const std::string& file, const std::string& kernel) {
  // Never destroyed: other threads may launch until the process ends.
  static auto& known = *new std::map<std::pair<int, std::string>, const jit::Kernel*>;
  static std::mutex mutex;
  {
    const std::lock_guard lock(mutex);
    const auto found = known.find({device, kernel});
    if (found != known.end()) return *found->second;
  }
  const jit::Kernel& made = jit::get_kernel(kernel_source(file, kernel));
  const std::lock_guard lock(mutex);
  known[{device, kernel}] = &made;
  return made;
}

}  // namespace

jit::KernelSource kernel_source(const std::string& file, const std::string& kernel) {
  return {.text = "#include \"ops/" + file + "\"",
          .kernel = "pararnn::ops::" + kernel,
          .headers = embedded_kernels()};
}

int access_width(std::initializer_list<torch::Tensor> tensors) {
  int width = 8;
  for (const torch::Tensor& t : tensors) {
    if (!t.defined()) continue;
    const int64_t bytes = t.element_size();
    const auto fits = [&](int n) {
      const auto align = std::min<int64_t>(16, n * bytes);
      if (t.size(-1) % n != 0 || reinterpret_cast<uintptr_t>(t.const_data_ptr()) % align != 0) {
        return false;
      }
      for (int64_t i = 0; i + 1 < t.dim(); ++i) {
        if (t.size(i) > 1 && t.stride(i) * bytes % align != 0) return false;
      }
      return true;
    };
    while (width > 1 && !fits(width)) width /= 2;
  }
  return width;
}

std::string RowPlan::arguments() const { return fmt::format("{}, {}, {}", width, packs, threads); }

RowPlan plan_rows(int64_t channels, int access_width, int64_t few_channels) {
  // More numbers in a thread's registers leave room for fewer threads; more threads are no block.
  constexpr int64_t kMostChannels = 16, kMostThreads = 1024;
  RowPlan best{};
  int64_t least = INT64_MAX;
  for (int width = access_width; width >= 1 && width >= access_width / 2; width /= 2) {
    for (int64_t threads = 32; threads <= kMostThreads; threads += 32) {
      const int64_t packs = (channels + width * threads - 1) / (width * threads);
      const int64_t held = packs * width;
      if (held > (threads < kMostThreads ? few_channels : kMostChannels)) continue;
      const int64_t lanes = held * threads;  // some may be idle
      if (lanes < least || (lanes == least && threads < best.threads)) {
        best = {width, static_cast<int>(packs), static_cast<int>(threads)};
        least = lanes;
      }
      break;  // more threads hold less each
    }
  }
  require(best.threads > 0, "rows of {} channels are longer than a GPU's kernels take", channels);
  return best;
}

int64_t resident_blocks(const std::string& file, const std::string& kernel, const torch::Tensor& on,
                        int threads) {
  static auto& known = *new std::map<std::tuple<int, std::string, int>, int64_t>;
  static std::mutex mutex;
  const int device = on.device().index();
  const std::lock_guard lock(mutex);
  auto& blocks = known[{device, kernel, threads}];
  if (blocks == 0) {
    const c10::DeviceGuard guard(on.device());
    blocks = jit::blocks_per_multiprocessor(find_kernel(device, file, kernel), threads) *
             multiprocessors_of(on);
  }
  return blocks;
}

bool has_clusters(const torch::Tensor& on) {
  constexpr int kLeastMajor = 9;
  int major = 0;
  jit::check_cuda(jit::cuda().cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor,
                                                     on.device().index()),
                  "tell the compute capability");
  return major >= kLeastMajor;
}

void launch_kernel(const std::string& file, const std::string& kernel, const torch::Tensor& on,
                   int64_t blocks, int threads, std::span<const std::byte> problem, int cluster,
                   size_t shared_bytes) {
  if (blocks == 0) return;
  const c10::DeviceGuard device(on.device());
  const c10::impl::VirtualGuardImpl gpu(on.device().type());
  const auto stream = static_cast<cudaStream_t>(gpu.getStream(on.device()).native_handle());
  const jit::Kernel& compiled = find_kernel(on.device().index(), file, kernel);
  void* const argument = const_cast<std::byte*>(problem.data());
  const size_t bytes = problem.size();
  jit::launch(compiled,
              {.grid = dim3(static_cast<unsigned>(blocks)),
               .block = dim3(static_cast<unsigned>(threads)),
               .shared_bytes = shared_bytes,
               .stream = stream,
               .cluster = static_cast<unsigned>(cluster)},
              std::span<void* const>(&argument, 1), std::span<const size_t>(&bytes, 1));
}

}  // namespace pararnn::ops
