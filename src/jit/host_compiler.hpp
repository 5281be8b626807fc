// The system's C++ compiler as a run-time compiler: text in, a function of this process out. What
// it made is kept on disk like the kernels of GPUs, and loaded from memory, so that a cached entry
// is checked before it is run.
//
//   const auto entry = jit::load_function({.text = "#include \"pararnn/cpu/kernels.hpp\" ...",
//                                          .function = "make_table"});
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "jit/source.hpp"

namespace pararnn::jit {

/// One program for the C++ compiler, with the engine's headers at hand.
struct HostSource {
  std::string text;
  std::string function;                   // extern "C", with default visibility
  std::vector<Header> headers = {};       // beside the engine's
  std::vector<std::string> options = {};  // beside the usual ones: "-mavx2"
  std::filesystem::path folder = {};      // where the compiler finds the lines that it shows
};

/// $CXX, or the first of c++, g++ and clang++ that PATH has, as an absolute path; empty if there is
/// none. Throws Error if CXX names nothing that can be run.
std::filesystem::path find_host_compiler();

/// The function, compiled or from the disk cache; valid for as long as the process lives. Processes
/// that ask for the same program at once compile it once. Throws CompileError with the compiler's
/// words, and Error if there is no compiler.
void* load_function(const HostSource& source);

}  // namespace pararnn::jit
