// Where a model is computed: what --device names, what is told of it, and how tokens get there.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>
#include <torch/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pararnn::train {

/// Whether --device can be called so: auto, cpu, cuda or cuda:N.
bool is_device_name(std::string_view name);

/// The device that --device names; cuda is cuda:0, and auto the first GPU that can be used, or else
/// the CPU. Throws Error on another name, and on a GPU that is not there or cannot be used.
torch::Device find_device(const std::string& name);

/// From now on this process computes by deterministic algorithms alone: what runs twice gives the
/// same bits on a GPU too, and an operation that has no such algorithm is an error. Plans of scans
/// are the planner's.
void use_deterministic_algorithms();

/// "cpu, 2 threads" or "cuda:0, NVIDIA H100 80GB HBM3".
std::string describe(const torch::Device& device);

/// Row-major tokens as a tensor (rows,columns) of int64 on a device, which is not waited for.
torch::Tensor tokens_on(const torch::Device& device, const std::vector<int32_t>& tokens,
                        int64_t rows, int64_t columns);

/// Copies row-major tokens into a tensor of int64, whose device is not waited for.
void send_tokens(const std::vector<int32_t>& tokens, const torch::Tensor& to);

/// A stream of a GPU for what cannot run on the default one; none on a CPU.
std::optional<c10::Stream> own_stream(const torch::Device& device);

/// While it lives, this thread launches on that stream, if it is one: after all that it launched
/// before, and before all that it launches later.
class OnStream {
 public:
  explicit OnStream(const std::optional<c10::Stream>& stream);
  ~OnStream();
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

 private:
  std::optional<c10::Stream> before_;  // of the same GPU, which need not be the current one
  std::optional<c10::StreamGuard> guard_;
};

/// A tensor on its way to the host. What was launched on the device after it is not waited for.
class OnItsWayToHost {
 public:
  explicit OnItsWayToHost(const torch::Tensor& values);

  /// The tensor on the host, once it is there.
  const torch::Tensor& wait() const;

 private:
  torch::Tensor values_;
  std::optional<c10::Event> arrived_;  // from a GPU
};

}  // namespace pararnn::train
