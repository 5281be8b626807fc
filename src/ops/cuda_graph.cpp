#include "ops/cuda_graph.hpp"

#include "jit/cuda_runtime.hpp"  // before the CUDA headers that overload its functions

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/util/Exception.h>
#include <torch/cuda.h>

#include <memory>
#include <string>

#include "base/error.hpp"

namespace pararnn::ops {
namespace {

/// What was wrong, without where in LibTorch.
std::string sentence_of(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  const std::string text = of_torch ? of_torch->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

/// Work that a GPU may still do uses the memory of its graph, so the last to hold it waits.
std::shared_ptr<at::cuda::CUDAGraph> make_graph(c10::DeviceIndex device) {
  return {new at::cuda::CUDAGraph, [device](at::cuda::CUDAGraph* graph) {
            try {
              torch::cuda::synchronize(device);
            } catch (const std::exception&) {  // the GPU has failed, as all else will tell
            }
            delete graph;
          }};
}

/// Ends a capture. One that has failed leaves LibTorch's allocators in it, which is mended here.
void end_capture(at::cuda::CUDAGraph& graph, c10::DeviceIndex device, c10::MempoolId_t pool) {
  try {
    graph.capture_end();
  } catch (const std::exception&) {
    try {
      c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool);
      c10::cuda::CUDACachingAllocator::releasePool(device, pool);
      at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(pool);
      at::getHostAllocator(at::kCUDA)->release_pool(pool);
    } catch (const std::exception&) {  // it had left them before it failed
    }
    throw;
  }
}

}  // namespace

std::function<void()> capture_graph(const std::function<void()>& run) {
  const c10::DeviceIndex device = c10::cuda::current_device();
  torch::cuda::synchronize(device);
  const auto graph = make_graph(device);
  const auto pool = at::cuda::graph_pool_handle();
  try {
    // Other threads may do meanwhile what a capture forbids.
    graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      run();
    } catch (...) {
      try {
        end_capture(*graph, device, pool);
      } catch (const std::exception&) {  // that the capture failed is known
      }
      throw;
    }
    end_capture(*graph, device, pool);
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    throw Error("cannot make a CUDA graph: " + sentence_of(error));
  }
  return [graph] { graph->replay(); };
}

}  // namespace pararnn::ops
