// NVRTC, the compiler for GPUs: text in, machine code out, for any architecture and without a GPU.
// The library is opened when it is first needed, by its name or beside the CUDA runtime, so that
// programs start on machines that have none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jit/source.hpp"

namespace pararnn::jit {

/// A kernel in machine code.
struct CompiledKernel {
  std::string symbol;  // its name in the code
  std::string code;    // a cubin for one architecture
  std::string log;     // what the compiler and the assembler said

  bool operator==(const CompiledKernel&) const = default;
};

/// The options that `source` is compiled with for an architecture such as "sm_90".
std::vector<std::string> compile_options(const KernelSource& source, std::string_view architecture);

/// Compiles the kernel with the engine's `headers`. Throws Error with the compiler's lines, which
/// name files and line numbers, if it does not compile, and Error if NVRTC is missing.
CompiledKernel compile(const KernelSource& source, const std::vector<Header>& headers,
                       std::string_view architecture);

/// The program in PTX, the assembler's text, for the oldest architecture. Throws as compile().
std::string compile_to_ptx(const std::string& text, const std::vector<Header>& headers);

/// NVRTC's version, such as "13.0". Throws Error if it is missing.
std::string compiler_version();

/// What a kernel takes of a multiprocessor. Bytes of the stack and of spills are per thread, bytes
/// of shared memory per block, without what a launch adds.
struct KernelResources {
  int registers = 0;  // a thread
  int shared_bytes = 0;
  int stack_bytes = 0;
  int spill_store_bytes = 0, spill_load_bytes = 0;
};

/// As the assembler reported them in the log, spills among them, which a loaded kernel does not
/// tell. For tables: nothing that is launched depends on the log's wording. Throws Error if it did
/// not report them.
KernelResources kernel_resources(const CompiledKernel& kernel);

}  // namespace pararnn::jit
