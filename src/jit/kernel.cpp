#include "jit/kernel.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/error.hpp"
#include "jit/cubin.hpp"
#include "jit/digest.hpp"
#include "jit/disk_cache.hpp"
#include "jit/system.hpp"

namespace pararnn::jit {
namespace {

// A compiled kernel as the content of a cache entry: each text behind its length.
std::string pack(const CompiledKernel& kernel) {
  std::string content;
  for (const std::string* text : {&kernel.symbol, &kernel.code, &kernel.log}) {
    content += fmt::format("{}\n{}", text->size(), *text);
  }
  return content;
}

std::optional<CompiledKernel> unpack(std::string_view content) {
  CompiledKernel kernel;
  for (std::string* text : {&kernel.symbol, &kernel.code, &kernel.log}) {
    size_t size = 0, digits = 0;
    for (; digits < content.size() && content[digits] != '\n'; ++digits) {
      size = 10 * size + static_cast<size_t>(content[digits] - '0');
    }
    if (digits + 1 + size > content.size()) return std::nullopt;
    *text = content.substr(digits + 1, size);
    content.remove_prefix(digits + 1 + size);
  }
  return kernel;
}

// Everything that the machine code depends on.
std::string cache_key(const KernelSource& source, const std::vector<Header>& headers,
                      std::string_view architecture) {
  Digest digest;
  digest.add(compiler_version()).add(source.text).add(source.kernel);
  for (const std::string& option : compile_options(source, architecture)) digest.add(option);
  for (const std::vector<Header>* list : {&source.headers, &headers}) {
    for (const Header& header : *list) digest.add(header.name).add(header.text);
  }
  return digest.text();
}

// Writes the program as a file that says how it is compiled.
void dump(const std::string& folder, const std::string& key, const KernelSource& source,
          std::string_view architecture) {
  std::string name;
  for (const char c : source.kernel.substr(0, 80)) {
    name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  }
  const std::string headers = environment("PARARNN_KERNEL_DIR");
  const std::filesystem::path path =
      std::filesystem::path(folder) /
      fmt::format("{}-{}-{}.cu", name, architecture, key.substr(0, 8));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::ofstream file(path);
  file << fmt::format("// kernel {}\n// NVRTC {}: {}\n// headers: {}\n{}\n", source.kernel,
                      compiler_version(), fmt::join(compile_options(source, architecture), " "),
                      headers.empty() ? "of the library" : headers, source.text);
  file.close();
  require(file.good(), "cannot write '{}', where PARARNN_DUMP_SOURCE wants it", path.string());
}

int current_device() {
  int device = 0;
  check_cuda(cuda().cudaGetDevice(&device), "use a GPU");
  return device;
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check_cuda(cuda().cudaDeviceGetAttribute(&value, which, device),
             "ask the GPU for its properties");
  return value;
}

// For the check of launches alone, so what cannot be read is not known.
std::vector<size_t> known_parameter_bytes(const CompiledKernel& compiled) {
  try {
    return parameter_bytes(compiled.code, compiled.symbol);
  } catch (const Error&) {
    return {};
  }
}

struct SourceHash {
  size_t operator()(const KernelSource& source) const {
    return std::hash<std::string>()(source.kernel) ^ (std::hash<std::string>()(source.text) << 1);
  }
};

// One kernel's place in the memory cache; its mutex is held while the kernel is made.
struct Slot {
  std::mutex mutex;
  std::unique_ptr<const Kernel> kernel;
};

Slot& find_slot(const KernelSource& source, int device) {
  using Slots = std::unordered_map<KernelSource, Slot, SourceHash>;
  // Never destroyed: other threads, and destructors of other statics, may still launch.
  static auto& slots = *new std::map<int, Slots>;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  return slots[device].try_emplace(source).first->second;
}

// A launch as the runtime takes it.
struct LaunchConfig {
  explicit LaunchConfig(const Launch& how) {
    unsigned count = 0;
    if (how.cooperative) {
      attributes[count].id = cudaLaunchAttributeCooperative;
      attributes[count++].val.cooperative = 1;
    }
    if (how.overlaps) {
      attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (how.cluster > 1) {
      attributes[count].id = cudaLaunchAttributeClusterDimension;
      attributes[count++].val.clusterDim = {how.cluster, 1, 1};
    }
    config.gridDim = how.grid;
    config.blockDim = how.block;
    config.dynamicSmemBytes = how.shared_bytes;
    config.stream = how.stream;
    config.attrs = attributes.data();
    config.numAttrs = count;
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;

  std::array<cudaLaunchAttribute, 3> attributes{};
  cudaLaunchConfig_t config{};
};

}  // namespace

const Kernel& get_kernel(const KernelSource& source) {
  const int device = current_device();
  Slot& slot = find_slot(source, device);
  const std::lock_guard lock(slot.mutex);
  if (!slot.kernel) {
    slot.kernel = std::make_unique<const Kernel>(
        load_kernel(source.kernel, compile_cached(source, current_architecture())));
  }
  return *slot.kernel;
}

Kernel load_kernel(const std::string& name, const CompiledKernel& compiled) {
  const int device = current_device();
  const RelaxedCapture relaxed;
  const std::string action = fmt::format("load the kernel {}", name);
  Kernel kernel{name, nullptr, known_parameter_bytes(compiled)};
  cudaLibrary_t library = nullptr;
  check_cuda(cuda().cudaLibraryLoadData(&library, compiled.code.data(), nullptr, nullptr, 0,
                                        nullptr, nullptr, 0),
             action);
  check_cuda(cuda().cudaLibraryGetKernel(&kernel.handle, library, compiled.symbol.c_str()), action);
  cudaFuncAttributes taken{};
  check_cuda(cuda().cudaFuncGetAttributes(&taken, kernel.handle), action);
  // All shared memory that the device gives may be asked for at a launch. This also brings the code
  // to the device now: a capture would not allow that at the first launch.
  check_cuda(
      cuda().cudaFuncSetAttribute(kernel.handle, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device) -
                                      static_cast<int>(taken.sharedSizeBytes)),
      action);
  return kernel;
}

CompiledKernel compile_cached(const KernelSource& source, std::string_view architecture) {
  std::vector<Header> headers = engine_headers();
  // A change to what only a CPU compiles compiles no kernel anew.
  std::erase_if(headers, [](const Header& h) { return h.name.starts_with("pararnn/cpu/"); });
  const std::string key = cache_key(source, headers, architecture);
  if (const std::string folder = environment("PARARNN_DUMP_SOURCE"); !folder.empty()) {
    dump(folder, key, source, architecture);
  }
  std::optional<CompiledKernel> compiled;  // or unpacked from the cache
  const std::string content = DiskCache(cache_folder()).load_or_make(key, [&] {
    compiled = compile(source, headers, architecture);
    return pack(*compiled);
  });
  if (!compiled) compiled = unpack(content);
  return compiled ? *std::move(compiled) : compile(source, headers, architecture);
}

std::string current_architecture() {
  const int device = current_device();
  return fmt::format("sm_{}{}", attribute(cudaDevAttrComputeCapabilityMajor, device),
                     attribute(cudaDevAttrComputeCapabilityMinor, device));
}

void launch(const Kernel& kernel, const Launch& how, std::span<void* const> arguments,
            std::span<const size_t> argument_bytes) {
  require(
      kernel.parameter_bytes.empty() || std::ranges::equal(argument_bytes, kernel.parameter_bytes),
      "the kernel {} takes arguments of {} bytes and was given {}", kernel.name,
      kernel.parameter_bytes, argument_bytes);
  LaunchConfig config(how);
  const cudaError_t status = cuda().cudaLaunchKernelExC(&config.config, kernel.handle,
                                                        const_cast<void**>(arguments.data()));
  if (status == cudaSuccess) return;
  check_cuda(status, fmt::format("launch {} on {}x{}x{} blocks of {} threads with {} bytes of "
                                 "shared memory",
                                 kernel.name, how.grid.x, how.grid.y, how.grid.z,
                                 how.block.x * how.block.y * how.block.z, how.shared_bytes));
}

int blocks_per_multiprocessor(const Kernel& kernel, int threads, size_t shared_bytes) {
  int blocks = 0;
  check_cuda(cuda().cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel.handle, threads,
                                                                  shared_bytes),
             fmt::format("tell how many blocks of {} fit", kernel.name));
  return blocks;
}

}  // namespace pararnn::jit
