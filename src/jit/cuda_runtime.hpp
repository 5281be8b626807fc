// The CUDA runtime of the process, found when it is first asked for. Nothing here is linked with
// CUDA, so one library serves a LibTorch with it and one without.
#pragma once

#include <cuda_runtime_api.h>

#include <filesystem>
#include <string_view>

namespace pararnn::jit {

/// The functions that are used.
#define PARARNN_CUDA_FUNCTIONS(X)                  \
  X(cudaGetDevice)                                 \
  X(cudaSetDevice)                                 \
  X(cudaGetDeviceCount)                            \
  X(cudaDeviceGetAttribute)                        \
  X(cudaDeviceSynchronize)                         \
  X(cudaGetLastError)                              \
  X(cudaGetErrorString)                            \
  X(cudaLibraryLoadData)                           \
  X(cudaLibraryGetKernel)                          \
  X(cudaFuncGetAttributes)                         \
  X(cudaFuncSetAttribute)                          \
  X(cudaOccupancyMaxActiveBlocksPerMultiprocessor) \
  X(cudaLaunchKernelExC)                           \
  X(cudaThreadExchangeStreamCaptureMode)           \
  X(cudaStreamIsCapturing)                         \
  X(cudaStreamSynchronize)                         \
  X(cudaMemcpyAsync)                               \
  X(cudaHostAlloc)                                 \
  X(cudaEventCreate)                               \
  X(cudaEventDestroy)                              \
  X(cudaEventRecord)                               \
  X(cudaEventQuery)                                \
  X(cudaEventElapsedTime)

/// They, under their own names.
struct CudaRuntime {
#define PARARNN_MEMBER(name) decltype(&::name) name;
  PARARNN_CUDA_FUNCTIONS(PARARNN_MEMBER)
#undef PARARNN_MEMBER
};

/// Throws Error if there is no CUDA runtime.
const CudaRuntime& cuda();

/// How many GPUs there are; 0 without a CUDA runtime or a driver.
int gpu_count();

/// The multiprocessors of a GPU, asked for once. Throws Error if there is no such GPU.
int multiprocessors_of(int device);

/// The folder that the CUDA runtime was loaded from; empty without one.
std::filesystem::path cuda_folder();

/// Throws Error "cannot <action>: <reason>" unless `status` is success.
void check_cuda(cudaError_t status, std::string_view action);

/// Lets this thread do what a capture of its stream forbids (load a kernel, make an event), as long
/// as it lives.
class RelaxedCapture {
 public:
  RelaxedCapture() { exchange(); }
  ~RelaxedCapture() { exchange(); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  void exchange() { cuda().cudaThreadExchangeStreamCaptureMode(&mode_); }
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace pararnn::jit
