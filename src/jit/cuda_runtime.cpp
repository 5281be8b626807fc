#include "jit/cuda_runtime.hpp"

#include <dlfcn.h>

#include <array>
#include <atomic>
#include <optional>
#include <string>

#include "base/error.hpp"

namespace pararnn::jit {
namespace {

constexpr const char* kName = "libcudart.so.13";

/// The runtime that LibTorch has loaded, or else the one that the system finds; null without one.
void* runtime_library() {
  static void* const library = [] {
    void* loaded = dlopen(kName, RTLD_LAZY | RTLD_NOLOAD);
    return loaded ? loaded : dlopen(kName, RTLD_LAZY);
  }();
  return library;
}

CudaRuntime find_functions() {
  void* const library = runtime_library();
  require(library,
          "cannot find the CUDA runtime {}, which comes with CUDA 13 and with LibTorch for it",
          kName);
  CudaRuntime functions{};
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    require(function, "{} lacks {}: it is not of CUDA 13", kName, name);
  };
#define PARARNN_FIND(name) find(functions.name, #name);
  PARARNN_CUDA_FUNCTIONS(PARARNN_FIND)
#undef PARARNN_FIND
  return functions;
}

}  // namespace

const CudaRuntime& cuda() {
  static const CudaRuntime functions = find_functions();
  return functions;
}

int gpu_count() {
  int count = 0;
  return runtime_library() && cuda().cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

int multiprocessors_of(int device) {
  static std::array<std::atomic<int>, 64> known{};
  const auto ask = [&] {
    int count = 0;
    check_cuda(cuda().cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
               "count the multiprocessors");
    return count;
  };
  if (size_t(device) >= known.size()) return ask();
  if (known[size_t(device)] == 0) known[size_t(device)] = ask();
  return known[size_t(device)];
}

std::filesystem::path cuda_folder() {
  Dl_info info{};
  void* const library = runtime_library();
  void* const symbol = library ? dlsym(library, "cudaGetDeviceCount") : nullptr;
  return symbol && dladdr(symbol, &info) && info.dli_fname
             ? std::filesystem::path(info.dli_fname).parent_path()
             : std::filesystem::path();
}

void check_cuda(cudaError_t status, std::string_view action) {
  if (status == cudaSuccess) return;
  cuda().cudaGetLastError();  // reported here, and not once more by whoever looks next
  throw Error(fmt::format("cannot {}: {}", action, cuda().cudaGetErrorString(status)));
}

}  // namespace pararnn::jit
