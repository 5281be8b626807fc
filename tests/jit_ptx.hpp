// PTX, the assembly text of kernels, for tests that look into it. The program compiles to machine
// code and has no need of it.
#pragma once

#include <dlfcn.h>
#include <fmt/format.h>
#include <nvrtc.h>

#include <string>
#include <vector>

#include "base/error.hpp"
#include "jit/nvrtc.hpp"

namespace pararnn::jit {

/// The PTX of a program over the engine's headers, without names to instantiate.
inline std::string ptx_of(const std::string& text, const std::vector<Header>& own_headers = {}) {
  compiler_version();  // loads NVRTC
  void* library = dlopen("libnvrtc.so.13", RTLD_LAZY | RTLD_NOLOAD);
  require(library, "NVRTC is not loaded");
#define FUNCTION(name) reinterpret_cast<decltype(&name)>(dlsym(library, #name))
  const std::vector<Header> headers = engine_headers();
  std::vector<const char*> names, texts, options;
  for (const std::vector<Header>* list : {&own_headers, &headers}) {
    for (const Header& header : *list) {
      names.push_back(header.name.c_str());
      texts.push_back(header.text.c_str());
    }
  }
  const std::vector<std::string> option_texts = compile_options({text, ""}, "sm_90");
  for (const std::string& option : option_texts) options.push_back(option.c_str());
  nvrtcProgram program = nullptr;
  FUNCTION(nvrtcCreateProgram)
  (&program, text.c_str(), "program.cu", static_cast<int>(names.size()), texts.data(),
   names.data());
  const nvrtcResult result =
      FUNCTION(nvrtcCompileProgram)(program, static_cast<int>(options.size()), options.data());
  size_t size = 0;
  FUNCTION(nvrtcGetProgramLogSize)(program, &size);
  std::string log(size, '\0'), ptx;
  FUNCTION(nvrtcGetProgramLog)(program, log.data());
  require(result == NVRTC_SUCCESS, "the program does not compile:\n{}", log);
  FUNCTION(nvrtcGetPTXSize)(program, &size);
  ptx.resize(size);
  FUNCTION(nvrtcGetPTX)(program, ptx.data());
  FUNCTION(nvrtcDestroyProgram)(&program);
#undef FUNCTION
  return ptx;
}

}  // namespace pararnn::jit
