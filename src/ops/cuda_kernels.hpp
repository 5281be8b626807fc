// How the operators of this layer run their GPU kernels (*_kernel.hpp), which are compiled at run
// time, each for the dtypes and sizes in use. The files travel inside the library, as text.
#pragma once

#include <torch/types.h>

#include <algorithm>
#include <initializer_list>
#include <span>
#include <string>

#include "jit/cuda_runtime.hpp"
#include "jit/source.hpp"
#include "kernels/cuda/scan_launch.hpp"
#include "ops/rows_problem.hpp"

namespace pararnn::ops {

/// Whether there are kernels for values of `dtype` on the device of `x`.
inline bool has_kernels(const torch::Tensor& x, torch::ScalarType dtype) {
  return x.is_cuda() &&
         (dtype == torch::kFloat || dtype == torch::kHalf || dtype == torch::kBFloat16);
}

using cuda::storage_name;

/// The most neighbouring channels, up to 8, that can be one access of each tensor: all have the
/// last dimension contiguous, and what is undefined does not count.
int access_width(std::initializer_list<torch::Tensor> tensors);

/// How rows lie in the registers of threads: RowShare of rows_kernel.hpp.
struct RowPlan {
  int width, packs, threads;

  int block_threads() const { return row_block_threads(threads); }
  int64_t rows_of_block() const { return block_threads() / threads; }
  /// "4, 3, 64": its template arguments.
  std::string arguments() const;
};

/// The longest row for which there is a plan.
inline constexpr int64_t kLongestRow = 16384;

/// For rows of so many channels, a multiple of the width of an access. A thread has a few channels,
/// at most, where the threads of a block do.
RowPlan plan_rows(int64_t channels, int access_width, int64_t few_channels = 12);

/// The multiprocessors of a tensor's device.
inline int64_t multiprocessors_of(const torch::Tensor& on) {
  return jit::multiprocessors_of(on.device().index());
}

/// The program of a kernel of "ops/`file`".
jit::KernelSource kernel_source(const std::string& file, const std::string& kernel);

/// How many blocks of so many threads of a kernel the device of a tensor holds at once.
int64_t resident_blocks(const std::string& file, const std::string& kernel, const torch::Tensor& on,
                        int threads);

/// Whether blocks of a tensor's device form clusters, which share their memory.
bool has_clusters(const torch::Tensor& on);

/// Launches a kernel of "ops/`file`" on the device of a tensor and its current stream, with so many
/// blocks a cluster, and dynamic shared memory for a block; `problem` is what it takes.
void launch_kernel(const std::string& file, const std::string& kernel, const torch::Tensor& on,
                   int64_t blocks, int threads, std::span<const std::byte> problem, int cluster = 1,
                   size_t shared_bytes = 0);

template <class Problem>
void launch_kernel(const std::string& file, const std::string& kernel, const torch::Tensor& on,
                   int64_t blocks, int threads, const Problem& problem, int cluster = 1,
                   size_t shared_bytes = 0) {
  launch_kernel(file, kernel, on, blocks, threads, std::as_bytes(std::span(&problem, 1)), cluster,
                shared_bytes);
}

}  // namespace pararnn::ops
