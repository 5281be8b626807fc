#include "ops/cuda_graph.hpp"

#include "jit/cuda_runtime.hpp"  // before the CUDA headers that overload its functions

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

}  // namespace

std::function<void()> capture_graph(const std::function<void()>& run) {
  torch::cuda::synchronize();
  const auto graph = std::make_shared<at::cuda::CUDAGraph>();
  try {
    // Other threads may do meanwhile what a capture forbids.
    graph->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      run();
    } catch (...) {
      try {
        graph->capture_end();
      } catch (const std::exception&) {  // that the capture failed is known
      }
      throw;
    }
    graph->capture_end();
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    throw Error("cannot make a CUDA graph: " + sentence_of(error));
  }
  return [graph] { graph->replay(); };
}

}  // namespace pararnn::ops
