#include "jit/nvrtc.hpp"

#include <dlfcn.h>
#include <nvrtc.h>

#include <charconv>
#include <filesystem>

#include "base/error.hpp"
#include "jit/cuda_runtime.hpp"

namespace pararnn::jit {
namespace {

// The functions of the library that are used here, under their own names.
class Nvrtc {
 public:
  Nvrtc() {
    constexpr const char* kName = "libnvrtc.so.13";
    void* library = dlopen(kName, RTLD_LAZY | RTLD_LOCAL);
    const std::string reason = library ? "" : dlerror();
    // LibTorch's packages keep it beside the CUDA runtime.
    if (!library) library = dlopen((cuda_folder() / kName).c_str(), RTLD_LAZY | RTLD_LOCAL);
    require(library,
            "cannot load NVRTC, which compiles kernels for the GPU ({}): put the folder of {}, "
            "which comes with CUDA 13 and with LibTorch for it, in LD_LIBRARY_PATH",
            reason, kName);
    const auto find = [&](auto& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      require(function, "{} lacks {}: it is not of CUDA 13", kName, name);
    };
    find(version, "nvrtcVersion");
    find(error_string, "nvrtcGetErrorString");
    find(create_program, "nvrtcCreateProgram");
    find(destroy_program, "nvrtcDestroyProgram");
    find(add_name_expression, "nvrtcAddNameExpression");
    find(compile_program, "nvrtcCompileProgram");
    find(lowered_name, "nvrtcGetLoweredName");
    find(log_size, "nvrtcGetProgramLogSize");
    find(log, "nvrtcGetProgramLog");
    find(code_size, "nvrtcGetCUBINSize");
    find(code, "nvrtcGetCUBIN");
    find(ptx_size, "nvrtcGetPTXSize");
    find(ptx, "nvrtcGetPTX");
  }

  decltype(&nvrtcVersion) version;
  decltype(&nvrtcGetErrorString) error_string;
  decltype(&nvrtcCreateProgram) create_program;
  decltype(&nvrtcDestroyProgram) destroy_program;
  decltype(&nvrtcAddNameExpression) add_name_expression;
  decltype(&nvrtcCompileProgram) compile_program;
  decltype(&nvrtcGetLoweredName) lowered_name;
  decltype(&nvrtcGetProgramLogSize) log_size;
  decltype(&nvrtcGetProgramLog) log;
  decltype(&nvrtcGetCUBINSize) code_size;
  decltype(&nvrtcGetCUBIN) code;
  decltype(&nvrtcGetPTXSize) ptx_size;
  decltype(&nvrtcGetPTX) ptx;
};

const Nvrtc& nvrtc() {
  static const Nvrtc library;
  return library;
}

void check(nvrtcResult result, std::string_view kernel) {
  require(result == NVRTC_SUCCESS, "NVRTC could not compile {}: {}", kernel,
          nvrtc().error_string(result));
}

struct Program {
  nvrtcProgram handle = nullptr;

  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() { nvrtc().destroy_program(&handle); }
};

// The number in front of `unit`, as in "Used 24 registers, 400 bytes smem"; 0 if there is none.
int number_before(std::string_view line, std::string_view unit) {
  const size_t end = line.find(unit);
  if (end == line.npos) return 0;
  const size_t begin = line.find_last_not_of("0123456789", end - 1) + 1;
  int number = 0;
  std::from_chars(line.data() + begin, line.data() + end, number);
  return number;
}

}  // namespace

std::vector<std::string> compile_options(const KernelSource& source,
                                         std::string_view architecture) {
  // With a driver NVRTC keeps a cache of its own, which gives code without the log.
  std::vector<std::string> options = {"--std=c++20", fmt::format("-arch={}", architecture),
                                      "-default-device", "--ptxas-options=-v", "--no-cache"};
  options.insert(options.end(), source.options.begin(), source.options.end());
  return options;
}

namespace {

std::string log_of(const Program& program, std::string_view name) {
  size_t size = 0;
  check(nvrtc().log_size(program.handle, &size), name);
  std::string log(size, '\0');
  check(nvrtc().log(program.handle, log.data()), name);
  while (!log.empty() && (log.back() == '\0' || log.back() == '\n')) log.pop_back();
  return log;
}

/// Compiles the program for an architecture; returns what the compiler said.
std::string run_compiler(Program& program, const std::string& text,
                         const std::vector<const Header*>& headers,
                         const std::vector<std::string>& options, std::string_view architecture,
                         const char* expression) {
  const char* name = expression ? expression : "a program";
  std::vector<const char*> names, texts, option_texts;
  for (const Header* header : headers) {
    names.push_back(header->name.c_str());
    texts.push_back(header->text.c_str());
  }
  for (const std::string& option : options) option_texts.push_back(option.c_str());
  check(nvrtc().create_program(&program.handle, text.c_str(), "kernel.cu",
                               static_cast<int>(names.size()), texts.data(), names.data()),
        name);
  if (expression) check(nvrtc().add_name_expression(program.handle, expression), name);
  const nvrtcResult result = nvrtc().compile_program(
      program.handle, static_cast<int>(option_texts.size()), option_texts.data());
  std::string log = log_of(program, name);
  if (result != NVRTC_SUCCESS) {
    throw CompileError(fmt::format("{} does not compile for {} ({})", name, architecture,
                                   nvrtc().error_string(result)),
                       std::move(log));
  }
  return log;
}

/// The user's and the engine's headers.
std::vector<const Header*> all_headers(const std::vector<Header>& own,
                                       const std::vector<Header>& engine) {
  std::vector<const Header*> all;
  for (const std::vector<Header>* list : {&own, &engine}) {
    for (const Header& header : *list) all.push_back(&header);
  }
  return all;
}

}  // namespace

CompiledKernel compile(const KernelSource& source, const std::vector<Header>& headers,
                       std::string_view architecture) {
  const char* kernel = source.kernel.c_str();
  Program program;
  CompiledKernel compiled;
  compiled.log = run_compiler(program, source.text, all_headers(source.headers, headers),
                              compile_options(source, architecture), architecture, kernel);
  const char* symbol = nullptr;
  check(nvrtc().lowered_name(program.handle, kernel, &symbol), kernel);
  compiled.symbol = symbol;
  size_t size = 0;
  check(nvrtc().code_size(program.handle, &size), kernel);
  compiled.code.resize(size);
  check(nvrtc().code(program.handle, compiled.code.data()), kernel);
  return compiled;
}

std::string compile_to_ptx(const std::string& text, const std::vector<Header>& headers) {
  const std::vector<Header> engine = engine_headers();
  Program program;
  run_compiler(program, text, all_headers(headers, engine),
               {"--std=c++20", "-arch=compute_80", "-default-device", "--no-cache"}, "PTX",
               nullptr);
  size_t size = 0;
  check(nvrtc().ptx_size(program.handle, &size), "a program");
  std::string ptx(size, '\0');
  check(nvrtc().ptx(program.handle, ptx.data()), "a program");
  return ptx;
}

std::string compiler_version() {
  int major = 0, minor = 0;
  check(nvrtc().version(&major, &minor), "anything");
  return fmt::format("{}.{}", major, minor);
}

KernelResources kernel_resources(const CompiledKernel& kernel) {
  const std::string_view log = kernel.log;
  size_t at = log.find(fmt::format("Compiling entry function '{}'", kernel.symbol));
  const size_t used = at == log.npos ? at : log.find(": Used ", at);
  require(used != log.npos, "the assembler said nothing of {}:\n{}", kernel.symbol, kernel.log);
  const std::string_view totals = log.substr(used, log.find('\n', used) - used);
  // The kernel's own properties come between; functions that were not inlined follow with theirs.
  at = log.find(fmt::format("Function properties for {}\n", kernel.symbol), at);
  const std::string_view properties = at == log.npos ? "" : log.substr(at, used - at);
  return {number_before(totals, " registers"), number_before(totals, " bytes smem"),
          number_before(properties, " bytes stack frame"),
          number_before(properties, " bytes spill stores"),
          number_before(properties, " bytes spill loads")};
}

}  // namespace pararnn::jit
