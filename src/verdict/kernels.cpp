#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "base/error.hpp"
#include "cells/cuda_kernels.hpp"
#include "jit/kernel.hpp"
#include "verdict/sections.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

/// The kernels that a training step spends its time in, in bfloat16.
struct TrainingKernel {
  cuda::Kernel kernel;
  const char* purpose;
};
constexpr TrainingKernel kKernels[] = {
    {{.name = cuda::Kernel::kForwardPass, .forward = cuda::ForwardPass::kGiven},
     "forward in sequence"},
    {{.name = cuda::Kernel::kForwardPass, .forward = cuda::ForwardPass::kBurnIn},
     "forward in chunks"},
    {{.name = cuda::Kernel::kForwardCorrect}, "forward corrections"},
    {{.name = cuda::Kernel::kBackwardPass, .backward = cuda::BackwardPass::kGiven},
     "backward in sequence"},
    {{.name = cuda::Kernel::kBackwardPass, .backward = cuda::BackwardPass::kBurnIn},
     "backward in chunks"},
    {{.name = cuda::Kernel::kBackwardCorrect}, "backward corrections"},
};

json compile_all(const CellDefinition& cell, const std::string& architecture) {
  constexpr size_t kCount = std::size(kKernels);
  std::vector<jit::KernelResources> resources(kCount);
  std::vector<std::exception_ptr> errors(kCount);
  {
    std::atomic<size_t> next{0};
    std::vector<std::jthread> threads(std::max(1u, std::thread::hardware_concurrency()));
    for (std::jthread& thread : threads) {
      thread = std::jthread([&] {
        for (size_t i = next++; i < kCount; i = next++) {
          try {
            resources[i] = jit::kernel_resources(jit::compile_cached(
                cuda_kernel(kKernels[i].kernel, cell, "pararnn::cuda::BFloat16"), architecture));
          } catch (...) {
            errors[i] = std::current_exception();
          }
        }
      });
    }
  }
  json result = json::array();
  for (size_t i = 0; i < kCount; ++i) {
    if (errors[i]) std::rethrow_exception(errors[i]);
    result.push_back(
        {{"purpose", kKernels[i].purpose},
         {"registers", resources[i].registers},
         {"spilled_bytes", resources[i].spill_store_bytes + resources[i].spill_load_bytes},
         {"shared_bytes", resources[i].shared_bytes}});
  }
  return result;
}

std::string architecture_here() {
  return jit::gpu_count() > 0 ? jit::current_architecture() : "sm_90";
}

}  // namespace

json kernels_section(const CellContract& cell, const VerdictOptions& options) {
  json operations = json::object();
  int special = 0;
  for (const TracedOperation& traced : cell.analysis.trace().list) {
    const char* name = counted_name(traced.operation);
    if (!name) continue;
    operations[name] = operations.value(name, 0) + 1;
    if (is_special_function(traced.operation)) ++special;
  }
  json result = {{"operations", operations}, {"special_functions", special}};
  try {
    const std::string architecture =
        options.architecture.empty() ? architecture_here() : options.architecture;
    result["gpu"] = {{"architecture", architecture}, {"storage", "bfloat16"}};
    result["gpu"]["kernels"] = compile_all(cell.definition, architecture);
  } catch (const std::exception& error) {
    result["gpu"] = {{"not_available", error.what()}};
  }
  return result;
}

}  // namespace pararnn
