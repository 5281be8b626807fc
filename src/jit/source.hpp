// What is compiled at run time: a short program over the engine's headers, and the kernel wanted of
// it. The headers travel inside the library; the environment variable PARARNN_KERNEL_DIR names an
// include folder to read them from instead, so that kernels can be worked on without a build. It is
// read when a kernel is compiled, not again for kernels that the process already has.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace pararnn::jit {

/// A file for `#include "name"`; compile errors show the name.
struct Header {
  std::string name, text;

  bool operator==(const Header&) const = default;
};

/// A program that does not compile: what it is, and the compiler's own words.
struct CompileError : Error {
  CompileError(const std::string& sentence, std::string the_words)
      : Error(sentence + ":\n" + the_words), words(std::move(the_words)) {}
  std::string words;
};

/// One kernel: `#include`s and templates, and the instantiation wanted.
struct KernelSource {
  std::string text;                       // "#include \"pararnn/cuda/decode.hpp\""
  std::string kernel;                     // "pararnn::cuda::decode_step<pararnn::Gru, float, 1>"
  std::vector<Header> headers = {};       // beside the engine's: a user's cell, named by its path
  std::vector<std::string> options = {};  // beside the usual ones: "--use_fast_math"

  bool operator==(const KernelSource&) const = default;
};

/// The engine's headers as they were when this library was built.
std::vector<Header> embedded_headers();

/// The headers below `folder`/pararnn, named relative to `folder`, in the order of their names.
/// Throws Error if there are none, or one cannot be read.
std::vector<Header> read_headers(const std::string& folder);

/// The engine's headers: those in PARARNN_KERNEL_DIR if it is set, or the embedded ones.
std::vector<Header> engine_headers();

}  // namespace pararnn::jit
