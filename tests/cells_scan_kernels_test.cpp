// Every kernel of the scan compiles without a GPU and keeps its numbers in registers; a table says
// how many. Each storage with one cell for one architecture is quick. `make test-kernels` takes
// every cell, storage and architecture: minutes, unless the disk cache has them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "cells/cell_registry.hpp"
#include "cells/cuda_kernels.hpp"
#include "jit/cubin.hpp"
#include "jit/kernel.hpp"
#include "scan_kernel_list.hpp"

namespace pararnn {
namespace {

struct Case {
  const CellDefinition* cell;
  std::string_view storage, architecture;
  bool starts;  // within rows
};

constexpr std::string_view kStorages[] = {"pararnn::cuda::BFloat16", "pararnn::cuda::Float16",
                                          "float", "double"};

std::vector<Case> some_cases() {
  const char* cells[] = {"lstm", "elman", "gru", "elman"};
  std::vector<Case> cases;
  for (const std::string_view storage : kStorages) {
    cases.push_back({&find_cell(cells[cases.size()]), storage, "sm_90", false});
  }
  cases.push_back({&find_cell("gru"), kStorages[0], "sm_90", true});
  return cases;
}

std::vector<Case> every_case() {
  std::vector<Case> cases;
  for (const CellDefinition& cell : built_in_cells()) {
    for (const std::string_view storage : kStorages) {
      for (const char* architecture : {"sm_80", "sm_90", "sm_100"}) {
        for (const bool starts : {false, true}) {
          cases.push_back({&cell, storage, architecture, starts});
        }
      }
    }
  }
  return cases;
}

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
  const auto& [cell, storage, architecture, starts] = GetParam();
  std::vector<jit::KernelSource> sources;
  const cuda::CellSizes sizes{
      cell->state, cell->params,
      storage == "double" ? cuda::Int(sizeof(double)) : cuda::Int(sizeof(float))};
  for (const cuda::Kernel& kernel :
       cuda::every_kernel(sizes, storage.ends_with("Float16"), starts)) {
    sources.push_back(cuda_kernel(kernel, *cell, storage));
  }
  std::vector<jit::CompiledKernel> compiled(sources.size());
  in_parallel(sources.size(),
              [&](size_t i) { compiled[i] = jit::compile_cached(sources[i], architecture); });
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string& name = sources[i].kernel;
    const jit::KernelResources resources = jit::kernel_resources(compiled[i]);
    fmt::print("{:6} {:3} registers {:5} bytes spilled  {}\n", architecture, resources.registers,
               resources.spill_store_bytes, name);
    // One correction of an LSTM, for rows within which states may start anew, is at the limit.
    const int most = starts ? 64 : 0;
    if (architecture == "sm_90") {
      EXPECT_LE(resources.spill_store_bytes + resources.spill_load_bytes, most) << name;
    }
    EXPECT_EQ(jit::parameter_bytes(compiled[i].code, compiled[i].symbol).size(), 1u) << name;
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [cell, storage, architecture, starts] = info.param;
  return fmt::format("{}_{}_{}{}", cell->name, storage.substr(storage.rfind(':') + 1), architecture,
                     starts ? "_starts" : "");
}

INSTANTIATE_TEST_SUITE_P(Some, ScanKernels, testing::ValuesIn(some_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Every, ScanKernels, testing::ValuesIn(every_case()), case_name);

}  // namespace
}  // namespace pararnn
