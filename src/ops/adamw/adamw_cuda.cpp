#include "ops/adamw/adamw_cuda.hpp"

#include <climits>

#include "ops/adamw/adamw_problem.hpp"
#include "ops/cuda_kernels.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// Numbers of an access: 16 bytes of those in float, where all tensors begin at a multiple of that.
int adamw_pack(std::span<const AdamWTensors> tensors) {
  constexpr int kPack = 4;
  const auto fits = [](const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.data_ptr()) % (kPack * t.element_size()) == 0;
  };
  for (const AdamWTensors& t : tensors) {
    if (!fits(t.weight) || !fits(t.gradient) || !fits(t.master) || !fits(t.first_moment) ||
        !fits(t.second_moment)) {
      return 1;
    }
  }
  return kPack;
}

}  // namespace

void adamw_on_cuda(std::span<const AdamWTensors> tensors, const AdamWOptions& options,
                   const Tensor& scalars) {
  for (; !tensors.empty();
       tensors = tensors.subspan(std::min<size_t>(kAdamWTensors, tensors.size()))) {
    const auto together = tensors.first(std::min<size_t>(kAdamWTensors, tensors.size()));
    AdamWProblem problem{.scalars = static_cast<const AdamWScalars*>(scalars.data_ptr()),
                         .change1 = static_cast<float>(1 - options.beta1),
                         .change2 = static_cast<float>(1 - options.beta2),
                         .epsilon = static_cast<float>(options.epsilon),
                         .tensors = {}};
    int64_t blocks = 0;
    for (int i = 0; i < kAdamWTensors; ++i) {
      AdamWEntry& to = problem.tensors[i];
      to.first_block = INT_MAX;
      if (i >= std::ssize(together)) continue;
      const AdamWTensors& from = together[static_cast<size_t>(i)];
      to = {.weight = from.weight.data_ptr(),
            .gradient = from.gradient.data_ptr(),
            .master = from.master.data_ptr<float>(),
            .first_moment = from.first_moment.data_ptr<float>(),
            .second_moment = from.second_moment.data_ptr<float>(),
            .count = from.master.numel(),
            .first_block = static_cast<int>(blocks),
            .decays = from.decays};
      blocks += (to.count + kAdamWNumbers - 1) / kAdamWNumbers;
    }
    launch_kernel("adamw/adamw_kernel.hpp",
                  fmt::format("adamw_update<{}, {}>",
                              storage_name(together[0].weight.scalar_type()), adamw_pack(together)),
                  scalars, blocks, kAdamWThreads, problem);
  }
}

}  // namespace pararnn::ops
