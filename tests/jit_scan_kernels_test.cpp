// Every kernel of the scan compiles without a GPU, for every cell, storage and architecture, and
// keeps its numbers in registers. A table says how many. Kernels are taken from the disk cache, so
// what did not change is quick; all of them take five minutes on two cores.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <pararnn/cells.hpp>
#include <thread>

#include "jit/cubin.hpp"
#include "jit/kernel.hpp"

namespace pararnn::jit {
namespace {

// The kernels of include/pararnn/cuda/<header>.hpp; {} stands for cell and storage.
struct ScanKernel {
  const char *header, *name;
  bool pairs = false;  // two channels a load: storage of two bytes
};
constexpr ScanKernel kKernels[] = {
    {"forward", "forward_pass<{}, 1, 1, false, true, false>"},
    {"forward", "forward_pass<{}, 1, 1, true, true, false>"},
    {"forward", "forward_pass<{}, 1, 1, true, false, true>"},
    {"forward", "forward_pass<{}, 2, 2, false, true, false>", true},
    {"forward", "forward_pass<{}, 2, 2, true, true, false>", true},
    {"forward", "forward_pass<{}, 2, 2, true, false, true>", true},
    {"forward", "forward_pass<{}, 1, 2, false, true, false>", true},
    {"forward", "forward_pass<{}, 1, 2, true, true, false>", true},
    {"forward", "forward_pass<{}, 1, 2, true, false, true>", true},
    {"decode", "decode_step<{}, 1>"},
    {"decode", "decode_step<{}, 2>", true},
    {"forward_correct", "forward_scan<{}>"},
    {"forward_correct", "forward_correct<{}>"},
    {"forward_correct", "forward_mismatch<{}>"},
    {"backward", "backward_pass<{}, 1, pararnn::cuda::BackwardMode::kGiven>"},
    {"backward", "backward_pass<{}, 1, pararnn::cuda::BackwardMode::kBurnIn>"},
    {"backward", "backward_pass<{}, 1, pararnn::cuda::BackwardMode::kMap>"},
    {"backward_correct", "backward_scan<{}>"},
    {"backward_correct", "backward_correct<{}>"},
    {"backward_correct", "backward_mismatch<{}>"},
    {"backward", "sum_parts<{}>"},
};

struct Cell {
  const char *name, *type;
  int state;
};
constexpr Cell kCells[] = {
#define CELL(name, Type, summary) {#name, #Type, Type::kState},
    PARARNN_CELLS(CELL)
#undef CELL
};

using Case = std::tuple<Cell, const char*, const char*>;  // cell, storage, architecture

class ScanKernels : public testing::TestWithParam<Case> {};

/// f(0), ..., f(count - 1) on all cores.
template <class F>
void in_parallel(size_t count, const F& f) {
  std::atomic<size_t> next{0};
  std::vector<std::jthread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::jthread& thread : threads) {
    thread = std::jthread([&] {
      for (size_t i = next++; i < count; i = next++) f(i);
    });
  }
}

TEST_P(ScanKernels, Compile) {
  const auto& [cell, storage, architecture] = GetParam();
  const bool half = std::string_view(storage).find("Float16") != std::string_view::npos;
  std::vector<KernelSource> sources;
  for (const ScanKernel& kernel : kKernels) {
    if (kernel.pairs && !half) continue;
    const std::string arguments = fmt::format("pararnn::{}, {}", cell.type, storage);
    sources.push_back(
        {fmt::format("#include \"pararnn/cells/{}.hpp\"\n#include \"pararnn/cuda/{}.hpp\"\n",
                     cell.name, kernel.header),
         "pararnn::cuda::" + fmt::format(fmt::runtime(kernel.name), arguments),
         {},
         {"--prec-div=false", "--prec-sqrt=false"}});
  }
  std::vector<CompiledKernel> compiled(sources.size());
  in_parallel(sources.size(),
              [&](size_t i) { compiled[i] = compile_cached(sources[i], architecture); });
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string& name = sources[i].kernel;
    const KernelResources resources = kernel_resources(compiled[i]);
    fmt::print("{:6} {:3} registers {:5} bytes spilled  {}\n", architecture, resources.registers,
               resources.spill_store_bytes, name);
    if (architecture == std::string("sm_90")) {
      EXPECT_EQ(resources.spill_store_bytes + resources.spill_load_bytes, 0) << name;
    }
    EXPECT_EQ(parameter_bytes(compiled[i].code, compiled[i].symbol).size(), 1u) << name;
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [cell, storage, architecture] = info.param;
  const std::string_view type = storage;
  return fmt::format("{}_{}_{}", cell.name, type.substr(type.rfind(':') + 1), architecture);
}

INSTANTIATE_TEST_SUITE_P(All, ScanKernels,
                         testing::Combine(testing::ValuesIn(kCells),
                                          testing::Values("pararnn::cuda::BFloat16",
                                                          "pararnn::cuda::Float16", "float",
                                                          "double"),
                                          testing::Values("sm_80", "sm_90", "sm_100")),
                         case_name);

}  // namespace
}  // namespace pararnn::jit
