#include "jit/kernel.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/error.hpp"
#include "jit/system.hpp"

namespace pararnn::jit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kScale = R"(
#include "pararnn/cells.hpp"
template <class T>
__global__ void scale(const T* in, T* out, T factor, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = factor * in[i];
}
)";
const KernelSource kSource{kScale, "scale<float>"};

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Starts a process that does the work and exits with what it returns.
pid_t start(const std::function<int()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      _exit(work());
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}\n", error.what());
      _exit(255);
    }
  }
  return child;
}

int exit_code(pid_t child) {
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

// An empty cache of its own, and no other variable set.
class KernelTest : public testing::Test {
 protected:
  KernelTest() {
    std::string pattern = (fs::temp_directory_path() / "pararnn-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    setenv("PARARNN_CACHE_DIR", (root_ / "cache").c_str(), 1);
    unsetenv("PARARNN_KERNEL_DIR");
    unsetenv("PARARNN_DUMP_SOURCE");
  }
  ~KernelTest() override { fs::remove_all(root_); }

  std::vector<fs::path> entries() const { return {fs::directory_iterator(root_ / "cache"), {}}; }

  fs::path root_;
};

TEST_F(KernelTest, ANewProcessTakesItFromTheDiskQuickly) {
  // In processes of their own, so that loading the compiler counts.
  ASSERT_EQ(exit_code(start([] { return compile_cached(kSource, "sm_90").code.empty(); })), 0);
  int best = 255;  // ms; others use this machine too
  for (int i = 0; i < 5; ++i) {
    best = std::min(best, exit_code(start([] {
                      const double seconds = seconds_of([] { compile_cached(kSource, "sm_90"); });
                      return static_cast<int>(std::min(254.0, std::ceil(1e3 * seconds)));
                    })));
  }
  fmt::print("from the disk cache: {} ms\n", best);
  EXPECT_LE(best, 50);
  EXPECT_EQ(entries().size(), 1u);
}

TEST_F(KernelTest, TheDiskCacheGivesTheSameBytes) {
  const CompiledKernel compiled = compile_cached(kSource, "sm_90");
  EXPECT_EQ(compile_cached(kSource, "sm_90"), compiled);
  EXPECT_EQ(compile(kSource, engine_headers(), "sm_90").code, compiled.code);
  EXPECT_EQ(entries().size(), 1u);
}

TEST_F(KernelTest, WhateverTheCodeDependsOnHasItsOwnEntry) {
  compile_cached(kSource, "sm_90");
  compile_cached(kSource, "sm_80");
  compile_cached({kScale, "scale<double>"}, "sm_90");
  compile_cached({kScale, "scale<float>", {}, {"--use_fast_math"}}, "sm_90");
  compile_cached({kScale, "scale<float>", {{"mine.hpp", ""}}}, "sm_90");
  compile_cached({kScale, "scale<float>", {{"mine.hpp", "\n"}}}, "sm_90");
  compile_cached({kScale + std::string("\n"), "scale<float>"}, "sm_90");
  EXPECT_EQ(entries().size(), 7u);
}

TEST_F(KernelTest, ADamagedEntryIsRebuilt) {
  const CompiledKernel compiled = compile_cached(kSource, "sm_90");
  const fs::path entry = entries().at(0);
  const std::string whole = read_file(entry).value();
  std::ofstream(entry, std::ios::binary) << whole.substr(0, whole.size() / 2);
  EXPECT_EQ(compile_cached(kSource, "sm_90").code, compiled.code);
  EXPECT_GE(read_file(entry)->size(), compiled.code.size());
}

TEST_F(KernelTest, ProcessesThatStartAtOnceAgree) {
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i) {
    children.push_back(start([] {
      const std::string code = compile_cached(kSource, "sm_90").code;
      return code != compile_cached(kSource, "sm_90").code;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(exit_code(child), 0);
  EXPECT_EQ(entries().size(), 1u);
}

TEST_F(KernelTest, WithoutAFolderItCompilesAnyway) {
  const CompiledKernel compiled = compile_cached(kSource, "sm_90");
  std::ofstream(root_ / "file") << "";
  setenv("PARARNN_CACHE_DIR", (root_ / "file" / "cache").c_str(), 1);
  testing::internal::CaptureStderr();
  EXPECT_EQ(compile_cached(kSource, "sm_90").code, compiled.code);
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
}

TEST_F(KernelTest, HeadersAreReadFromTheFolderThatTheEnvironmentNames) {
  const CompiledKernel compiled = compile_cached(kSource, "sm_90");
  for (const Header& header : embedded_headers()) {
    fs::create_directories((root_ / "include" / header.name).parent_path());
    std::ofstream(root_ / "include" / header.name) << header.text;
  }
  setenv("PARARNN_KERNEL_DIR", (root_ / "include").c_str(), 1);
  EXPECT_EQ(engine_headers(), embedded_headers());
  EXPECT_EQ(compile_cached(kSource, "sm_90"), compiled);
  EXPECT_EQ(entries().size(), 1u) << "the same text is the same entry";

  std::ofstream(root_ / "include/pararnn/core/vec.hpp", std::ios::app) << "// changed\n";
  EXPECT_EQ(compile_cached(kSource, "sm_90").code, compiled.code);
  EXPECT_EQ(entries().size(), 2u);

  std::ofstream(root_ / "include/pararnn/core/vec.hpp", std::ios::app) << "wrong;\n";
  EXPECT_THROW(compile_cached(kSource, "sm_90"), Error);

  setenv("PARARNN_KERNEL_DIR", (root_ / "cache").c_str(), 1);
  EXPECT_THROW(compile_cached(kSource, "sm_90"), Error);
}

TEST_F(KernelTest, DumpsWhatItCompiles) {
  setenv("PARARNN_DUMP_SOURCE", (root_ / "dump").c_str(), 1);
  compile_cached(kSource, "sm_90");
  const std::vector<fs::path> files{fs::directory_iterator(root_ / "dump"), {}};
  ASSERT_EQ(files.size(), 1u);
  const std::string text = read_file(files[0]).value();
  EXPECT_NE(text.find(kScale), text.npos);
  EXPECT_NE(text.find("-arch=sm_90"), text.npos);
  EXPECT_NE(text.find("scale<float>"), text.npos);
}

bool has_gpu() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

TEST_F(KernelTest, WithoutAGpuAskingForAKernelIsAnError) {
  if (has_gpu()) GTEST_SKIP() << "there is a GPU";
  EXPECT_THROW(get_kernel(kSource), Error);
  EXPECT_THROW(current_architecture(), Error);
}

TEST_F(KernelTest, WithoutAGpuLoadingTellsThatAndNothingOfTheLog) {
  if (has_gpu()) GTEST_SKIP() << "there is a GPU";
  CompiledKernel compiled = compile_cached(kSource, "sm_90");
  compiled.log = "an assembler that words its report in another way";
  try {
    load_kernel("scale<float>", compiled);
    FAIL();
  } catch (const Error& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("cannot use a GPU")) << error.what();
  }
}

class GpuTest : public KernelTest {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "there is no GPU";
    check_cuda(cudaMalloc(reinterpret_cast<void**>(&in_), kCount * sizeof(float)), "allocate");
    check_cuda(cudaMalloc(reinterpret_cast<void**>(&out_), kCount * sizeof(float)), "allocate");
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream");
    std::vector<float> values(kCount);
    for (int i = 0; i < kCount; ++i) values[i] = static_cast<float>(i);
    check_cuda(cudaMemcpy(in_, values.data(), kCount * sizeof(float), cudaMemcpyDefault), "copy");
  }

  // That the output is `factor` times 0, 1, 2, ..., once the stream has come so far; and clears it.
  void expect_scaled(float factor) {
    check_cuda(cudaStreamSynchronize(stream_), "wait");
    std::vector<float> values(kCount);
    check_cuda(cudaMemcpy(values.data(), out_, kCount * sizeof(float), cudaMemcpyDefault), "copy");
    for (int i = 0; i < kCount; ++i) ASSERT_EQ(values[i], factor * static_cast<float>(i));
    check_cuda(cudaMemset(out_, 0, kCount * sizeof(float)), "clear");
    check_cuda(cudaDeviceSynchronize(), "wait");
  }

  static constexpr int kCount = 1000;
  float *in_ = nullptr, *out_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

TEST_F(GpuTest, LaunchesWhatItCompiled) {
  const Kernel* kernel = nullptr;
  const double first = seconds_of([&] { kernel = &get_kernel(kSource); });
  const double again = seconds_of([&] {
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(&get_kernel(kSource), kernel);
  });
  fmt::print("first use {:.0f} ms, then {:.2f} µs\n", 1e3 * first, 1e3 * again);
  EXPECT_LE(first, 3);
  EXPECT_EQ(kernel->parameter_bytes, (std::vector<size_t>{8, 8, 4, 4}));
  launch(*kernel, {.grid = 8, .block = 128, .stream = stream_}, in_, out_, 3.0f, kCount);
  expect_scaled(3);
  launch(
      *kernel,
      {.grid = 8, .block = 128, .shared_bytes = 200 << 10, .stream = stream_, .cooperative = true},
      in_, out_, 5.0f, kCount);
  expect_scaled(5);
  EXPECT_GE(blocks_per_multiprocessor(*kernel, 128), 8);
}

TEST_F(GpuTest, LoadsWhateverTheCompilerSaid) {
  CompiledKernel compiled = compile_cached(kSource, current_architecture());
  compiled.log = "an assembler that words its report in another way";
  const Kernel kernel = load_kernel("scale<float>", compiled);
  launch(kernel, {.grid = 8, .block = 128, .shared_bytes = 200 << 10, .stream = stream_}, in_, out_,
         2.0f, kCount);
  expect_scaled(2);
}

TEST_F(GpuTest, WrongLaunchesAreErrors) {
  const Kernel& kernel = get_kernel(kSource);
  const Launch how{.grid = 8, .block = 128, .stream = stream_};
  EXPECT_THROW(launch(kernel, how, in_, out_, 3.0, kCount), Error);
  EXPECT_THROW(launch(kernel, how, in_, out_, 3.0f), Error);
  EXPECT_THROW(launch(kernel, how, in_, out_, 3.0f, kCount, kCount), Error);
  EXPECT_THROW(
      launch(kernel, {.grid = 8, .block = 4096, .stream = stream_}, in_, out_, 3.0f, kCount),
      Error);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  launch(kernel, how, in_, out_, 3.0f, kCount);
  expect_scaled(3);
}

TEST_F(GpuTest, LoadsAndLaunchesWhileAStreamIsCaptured) {
  const KernelSource source{kScale + std::string("// for a graph\n"), "scale<float>"};
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "capture");
  launch(get_kernel(source), {.grid = 8, .block = 128, .stream = stream_}, in_, out_, 7.0f, kCount);
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(stream_, &graph), "capture");
  cudaGraphExec_t executable = nullptr;
  check_cuda(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  check_cuda(cudaGraphLaunch(executable, stream_), "launch a graph");
  expect_scaled(7);
}

TEST_F(GpuTest, ThreadsGetOneKernel) {
  std::vector<const Kernel*> kernels(8);
  std::vector<std::jthread> threads;
  for (const Kernel*& kernel : kernels) {
    threads.emplace_back([&] { kernel = &get_kernel({kScale, "scale<double>"}); });
  }
  threads.clear();
  for (const Kernel* kernel : kernels) EXPECT_EQ(kernel, kernels[0]);
  EXPECT_EQ(entries().size(), 1u);
}

TEST_F(GpuTest, EveryDeviceHasItsOwn) {
  int devices = 0;
  check_cuda(cudaGetDeviceCount(&devices), "count");
  if (devices < 2) GTEST_SKIP() << "there is one GPU";
  const Kernel* first = &get_kernel(kSource);
  check_cuda(cudaSetDevice(1), "use the second");
  EXPECT_NE(&get_kernel(kSource), first);
  check_cuda(cudaSetDevice(0), "use the first");
  EXPECT_EQ(&get_kernel(kSource), first);
}

}  // namespace
}  // namespace pararnn::jit
