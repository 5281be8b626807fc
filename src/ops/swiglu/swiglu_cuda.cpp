#include "ops/swiglu/swiglu_cuda.hpp"

#include <torch/autograd.h>

#include <algorithm>

#include "ops/cuda_kernels.hpp"
#include "ops/rows.hpp"
#include "ops/swiglu/swiglu_problem.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

constexpr const char* kSwigluFile = "swiglu/swiglu_kernel.hpp";
constexpr int kSwigluThreads = 128;
constexpr int64_t kSwigluBlocks = 64;  // for each multiprocessor, at most

int64_t blocks_for(const Tensor& on, int64_t packs) {
  return std::min((packs + kSwigluThreads - 1) / kSwigluThreads,
                  kSwigluBlocks * multiprocessors_of(on));
}

struct SwigluOnCuda : torch::autograd::Function<SwigluOnCuda> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input) {
    const Tensor x = foldable(input);
    std::vector<int64_t> sizes = input.sizes().vec();
    sizes.back() /= 2;
    const Tensor y = torch::empty(sizes, x.options());
    const int pack = access_width({x.narrow(-1, 0, sizes.back()), y});
    launch_kernel(kSwigluFile,
                  fmt::format("swiglu_forward<{}, {}>", storage_name(x.scalar_type()), pack), x,
                  blocks_for(x, y.numel() / pack), kSwigluThreads,
                  SwigluForward{x.size(0), static_cast<int>(sizes.back()), x.stride(0),
                                x.data_ptr(), y.data_ptr()});
    context->save_for_backward({input});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const Tensor input = context->get_saved_variables()[0];
    const Tensor x = foldable(input), dy = foldable(gradients[0]);
    const Tensor dx = torch::empty(input.sizes(), x.options());
    const int pack = access_width({x.narrow(-1, 0, dy.size(-1)), dy});
    launch_kernel(kSwigluFile,
                  fmt::format("swiglu_backward<{}, {}>", storage_name(x.scalar_type()), pack), x,
                  blocks_for(x, dy.numel() / pack), kSwigluThreads,
                  SwigluBackward{x.size(0), static_cast<int>(dy.size(-1)), x.stride(0),
                                 dy.stride(0), x.data_ptr(), dy.data_ptr(), dx.data_ptr()});
    return {dx};
  }
};

}  // namespace

Tensor swiglu_on_cuda(const Tensor& x) { return SwigluOnCuda::apply(x); }

}  // namespace pararnn::ops
