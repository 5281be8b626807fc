// Kernels ready to launch: a memory cache over the disk cache over the compiler. A kernel is loaded
// through the CUDA runtime, never by libcuda itself, so programs start without a driver; whoever
// asks for a kernel without one gets an Error.
//
//   const jit::Kernel& kernel = jit::get_kernel({R"(#include "my_kernel.hpp")", "scale<float>"});
//   jit::launch(kernel, {.grid = blocks, .block = 256, .stream = stream}, pointer, count);
//
// PARARNN_DUMP_SOURCE names a folder that gets the text of each program and how it was compiled.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "jit/cuda_runtime.hpp"
#include "jit/nvrtc.hpp"
#include "jit/source.hpp"

namespace pararnn::jit {

/// A kernel on one device, for as long as the process lives.
struct Kernel {
  std::string name;  // as KernelSource names it
  cudaKernel_t handle;
  std::vector<size_t> parameter_bytes;  // empty if not known
};

/// The kernel for the current device: compiled at most once a process and device, in most processes
/// never, as the code is kept on disk. Any thread may ask, also while a stream is captured. Throws
/// Error with the compiler's lines if it does not compile, and Error if there is no GPU.
const Kernel& get_kernel(const KernelSource& source);

/// Loads machine code onto the current device, for as long as the process lives. What the compiler
/// said of it does not matter. Throws Error if there is no GPU or it is not for this one.
Kernel load_kernel(const std::string& name, const CompiledKernel& compiled);

/// The machine code of a kernel, from the disk cache or compiled; needs no GPU.
CompiledKernel compile_cached(const KernelSource& source, std::string_view architecture);

/// The current device's architecture, such as "sm_90". Throws Error if there is no GPU.
std::string current_architecture();

/// A launch: blocks, threads a block, dynamic shared memory a block (as much as the device gives,
/// without further ado), the stream; a cooperative grid may wait for all its blocks, and must fit
/// the device at once; one that overlaps may start before the kernel before it has ended, and waits
/// for it by itself (wait_for_previous_kernel of cuda/primitives.hpp; compute capability 9.0); so
/// many blocks along x are a cluster (compute capability 9.0, where there is more than one).
struct Launch {
  dim3 grid, block;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool cooperative = false, overlaps = false;
  unsigned cluster = 1;
};

/// Launches without waiting. The pointers are to the arguments, whose sizes must be the kernel's.
void launch(const Kernel& kernel, const Launch& how, std::span<void* const> arguments,
            std::span<const size_t> argument_bytes);

/// The same for arguments of exactly the types that the kernel takes. Throws Error if their number
/// or sizes differ, or the launch fails.
template <class... Arguments>
void launch(const Kernel& kernel, const Launch& how, const Arguments&... arguments) {
  const std::array<void*, sizeof...(Arguments)> pointers = {
      const_cast<void*>(static_cast<const void*>(&arguments))...};
  constexpr std::array<size_t, sizeof...(Arguments)> kBytes = {sizeof(Arguments)...};
  launch(kernel, how, std::span<void* const>(pointers), std::span<const size_t>(kBytes));
}

/// How many blocks of so many threads a multiprocessor holds at once: a cooperative grid has at
/// most this times the number of multiprocessors.
int blocks_per_multiprocessor(const Kernel& kernel, int threads, size_t shared_bytes = 0);

}  // namespace pararnn::jit
