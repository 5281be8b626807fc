#include "ops/cross_entropy/cross_entropy_cuda.hpp"

#include <algorithm>

#include "ops/cross_entropy/cross_entropy_problem.hpp"
#include "ops/cuda_kernels.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

constexpr const char* kCrossEntropyFile = "cross_entropy/cross_entropy_kernel.hpp";
constexpr int64_t kScalingBlocks = 16;  // for each multiprocessor, at most

}  // namespace

int64_t logits_stride(int64_t vocabulary) {
  constexpr int64_t kUnit = 8;  // a pack of any dtype
  return (vocabulary + kUnit - 1) / kUnit * kUnit;
}

LogitsPlan plan_logits(int64_t vocabulary, int64_t element_bytes) {
  const int64_t width = kLogitsPackBytes / element_bytes;
  const int64_t packs = (vocabulary + width - 1) / width;
  int threads = 64;
  while (threads < kMostRowThreads && packs > int64_t{threads} * kMostHeldPacks) threads *= 2;
  return {threads, static_cast<int>(
                       std::clamp<int64_t>((packs + threads - 1) / threads, 1, kMostHeldPacks))};
}

void cross_entropy_rows_cuda(const Tensor& logits, const Tensor& targets, double z_loss,
                             bool gradient, const Tensor& cross_entropies,
                             const Tensor& squared_log_partitions) {
  const LogitsPlan plan = plan_logits(logits.size(1), logits.element_size());
  launch_kernel(
      kCrossEntropyFile,
      fmt::format("cross_entropy_rows<{}, {}, {}, {}>", storage_name(logits.scalar_type()),
                  plan.threads, plan.held_packs, gradient),
      logits, logits.size(0), plan.threads,
      CrossEntropyRows{.width = static_cast<int>(logits.size(1)),
                       .z_loss = static_cast<float>(z_loss),
                       .stride = logits.stride(0),
                       .logits = logits.data_ptr(),
                       .targets = reinterpret_cast<const long long*>(targets.data_ptr<int64_t>()),
                       .cross_entropies = cross_entropies.data_ptr<float>(),
                       .squared_log_partitions = squared_log_partitions.data_ptr<float>()});
}

void scale_gradient_cuda(const Tensor& gradient, const Tensor& factor) {
  const int64_t most = kLogitsPackBytes / gradient.element_size();
  const int64_t width = std::min<int64_t>(access_width({gradient.flatten()}), most);
  const int64_t packs = gradient.numel() / width;
  const int64_t blocks = std::min((packs + kRowBlockThreads - 1) / kRowBlockThreads,
                                  kScalingBlocks * multiprocessors_of(gradient));
  launch_kernel(kCrossEntropyFile,
                fmt::format("scale_gradient<{}, {}>", storage_name(gradient.scalar_type()), width),
                gradient, blocks, kRowBlockThreads,
                GradientScaling{gradient.numel(), factor.data_ptr<float>(), gradient.data_ptr()});
}

}  // namespace pararnn::ops
