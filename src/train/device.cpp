#include "train/device.hpp"

#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cuda_runtime_api.h>
#include <torch/cuda.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

// The compute capability that the engine's kernels need (they copy asynchronously to shared
// memory).
constexpr int kLeastMajor = 8;

cudaDeviceProp properties_of(int gpu) {
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, gpu);
  require(error == cudaSuccess, "the GPU cuda:{} cannot be used: {}; give --device cpu", gpu,
          cudaGetErrorString(error));
  return properties;
}

}  // namespace

bool is_device_name(std::string_view name) {
  if (!name.starts_with("cuda:")) return name == "auto" || name == "cpu" || name == "cuda";
  const std::string_view number = name.substr(5);
  return (number.size() == 1 || number.size() == 2) &&
         std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; });
}

torch::Device find_device(const std::string& name) {
  require(is_device_name(name),
          "--device is \"{}\", but must be auto, cpu, cuda, or cuda:1 for the second GPU", name);
  if (name == "cpu") return torch::kCPU;
  const int count = torch::cuda::device_count();
  if (name == "auto") {
    for (int gpu = 0; gpu < count; ++gpu) {
      if (properties_of(gpu).major >= kLeastMajor)
        return {torch::kCUDA, static_cast<torch::DeviceIndex>(gpu)};
    }
    return torch::kCPU;
  }
  require(count > 0,
          "--device {}: this machine has no GPU that CUDA can use (nvidia-smi shows what the "
          "driver sees); give --device cpu",
          name);
  const int gpu = name == "cuda" ? 0 : std::stoi(name.substr(5));
  require(gpu < count, "--device {}: this machine has {} GPU{}, the last of which is cuda:{}", name,
          count, count == 1 ? "" : "s", count - 1);
  const cudaDeviceProp properties = properties_of(gpu);
  require(properties.major >= kLeastMajor,
          "--device {}: the {} has compute capability {}.{}, but {}.0 is needed; give --device cpu",
          name, properties.name, properties.major, properties.minor, kLeastMajor);
  return {torch::kCUDA, static_cast<torch::DeviceIndex>(gpu)};
}

void use_deterministic_algorithms() {
  // cuBLAS sums in a fixed order only with workspaces of fixed sizes; it looks once, when it
  // begins.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  // LibTorch would also fill new memory with NaN, to show what reads it too early. Nothing here
  // does, and a write more of all memory costs time.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

std::string describe(const torch::Device& device) {
  if (device.is_cuda()) return device.str() + ", " + properties_of(device.index()).name;
  const int threads = torch::get_num_threads();
  return fmt::format("{}, {} thread{}", device.str(), threads, threads == 1 ? "" : "s");
}

torch::Tensor tokens_on(const torch::Device& device, const std::vector<int32_t>& tokens,
                        int64_t rows, int64_t columns) {
  const torch::Tensor result =
      torch::empty({rows, columns}, torch::dtype(torch::kInt64).device(device));
  send_tokens(tokens, result);
  return result;
}

void send_tokens(const std::vector<int32_t>& tokens, const torch::Tensor& to) {
  const torch::Tensor on_host =
      torch::from_blob(const_cast<int32_t*>(tokens.data()), to.sizes(), torch::kInt32);
  if (to.is_cpu()) {
    to.copy_(on_host);
  } else {
    to.copy_(on_host.to(torch::kInt64).pin_memory(), /*non_blocking=*/true);
  }
}

std::optional<c10::Stream> own_stream(const torch::Device& device) {
  if (!device.is_cuda()) return std::nullopt;
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

namespace {

/// What is launched on one stream from now on comes after what was launched on another.
void wait_on_stream(const c10::Stream& later, const c10::Stream& earlier) {
  c10::Event event(earlier.device_type());
  event.record(earlier);
  event.block(later);
}

}  // namespace

OnStream::OnStream(const std::optional<c10::Stream>& stream) {
  if (!stream) return;
  before_ = c10::impl::VirtualGuardImpl(stream->device_type()).getStream(stream->device());
  guard_.emplace(*stream);
  wait_on_stream(*stream, *before_);
}

OnStream::~OnStream() {
  if (!guard_) return;
  try {
    wait_on_stream(*before_, guard_->current_stream());
  } catch (const std::exception&) {
    // A GPU that has failed tells the next call too.
  }
}

OnItsWayToHost::OnItsWayToHost(const torch::Tensor& values) : values_(values) {
  if (values.is_cpu()) return;
  values_ = torch::empty(values.sizes(), values.options().device(torch::kCPU).pinned_memory(true))
                .copy_(values, /*non_blocking=*/true);
  arrived_.emplace(values.device().type());
  arrived_->record(c10::impl::VirtualGuardImpl(values.device().type()).getStream(values.device()));
}

const torch::Tensor& OnItsWayToHost::wait() const {
  if (arrived_) arrived_->synchronize();
  return values_;
}

}  // namespace pararnn::train
