// Every kernel of the scan compiles without a GPU, and keeps its numbers in registers. A table says
// how many. Kernels are taken from the disk cache, so what did not change is quick. All cells,
// storages and architectures take a quarter of an hour:
//
//   jit_scan_kernels_test --gtest_also_run_disabled_tests
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <pararnn/cells.hpp>

#include "jit/cubin.hpp"
#include "jit/kernel.hpp"

namespace pararnn::jit {
namespace {

// The kernels of include/pararnn/cuda/<header>.hpp; {} stands for cell and storage.
struct ScanKernel {
  const char *header, *name;
  bool pairs = false;  // two channels a thread: storage of two bytes
};
constexpr ScanKernel kKernels[] = {
    {"forward", "forward_pass<{}, 1, false, true, false>"},
    {"forward", "forward_pass<{}, 1, true, true, false>"},
    {"forward", "forward_pass<{}, 1, true, false, true>"},
    {"forward", "forward_pass<{}, 2, false, true, false>", true},
    {"forward", "forward_pass<{}, 2, true, true, false>", true},
    {"forward", "forward_pass<{}, 2, true, false, true>", true},
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

TEST_P(ScanKernels, Compile) {
  const auto& [cell, storage, architecture] = GetParam();
  for (const ScanKernel& kernel : kKernels) {
    const bool half = std::string_view(storage).find("Float16") != std::string_view::npos;
    if (kernel.pairs && !half) continue;
    const std::string arguments = fmt::format("pararnn::{}, {}", cell.type, storage);
    const std::string name = fmt::format(fmt::runtime(kernel.name), arguments);
    const KernelSource source{
        fmt::format("#include \"pararnn/cells/{}.hpp\"\n#include \"pararnn/cuda/{}.hpp\"\n",
                    cell.name, kernel.header),
        "pararnn::cuda::" + name,
        {},
        {"--prec-div=false", "--prec-sqrt=false"}};
    const CompiledKernel compiled = compile_cached(source, architecture);
    const KernelResources resources = kernel_resources(compiled);
    fmt::print("{:6} {:3} registers {:5} bytes spilled  {}\n", architecture, resources.registers,
               resources.spill_store_bytes, name);
    if (architecture == std::string("sm_90")) {
      EXPECT_EQ(resources.spill_store_bytes + resources.spill_load_bytes, 0) << name;
    }
    EXPECT_EQ(parameter_bytes(compiled.code, compiled.symbol).size(),
              source.kernel.find("sum_parts") == std::string::npos ? 1u : 2u);
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [cell, storage, architecture] = info.param;
  const std::string_view type = storage;
  return fmt::format("{}_{}_{}", cell.name, type.substr(type.rfind(':') + 1), architecture);
}

INSTANTIATE_TEST_SUITE_P(Hopper, ScanKernels,
                         testing::Combine(testing::ValuesIn(kCells),
                                          testing::Values("pararnn::cuda::BFloat16"),
                                          testing::Values("sm_90")),
                         case_name);

INSTANTIATE_TEST_SUITE_P(DISABLED_All, ScanKernels,
                         testing::Combine(testing::ValuesIn(kCells),
                                          testing::Values("pararnn::cuda::BFloat16",
                                                          "pararnn::cuda::Float16", "float",
                                                          "double"),
                                          testing::Values("sm_80", "sm_90", "sm_100")),
                         case_name);

}  // namespace
}  // namespace pararnn::jit
