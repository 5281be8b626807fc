#include "nn/causal_convolution.hpp"

#include <cmath>

#include "nn/initial_weights.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"

namespace pararnn::nn {

using torch::Tensor;

CausalConvolution::CausalConvolution(int64_t channels, int64_t width, ConvolutionEnding ending) {
  const double bound = 1 / std::sqrt(double(width));
  weight_ = register_parameter(
      "weight", torch::empty({width, channels}, weight_options()).uniform_(-bound, bound));
  if (ending == ConvolutionEnding::kBiasAndSilu) {
    bias_ = register_parameter("bias",
                               torch::empty({channels}, weight_options()).uniform_(-bound, bound));
  }
}

std::pair<Tensor, Tensor> CausalConvolution::forward(const Tensor& x, const Tensor& before,
                                                     const Documents& documents) {
  const int64_t kept = weight_.size(0) - 1, steps = x.size(1);
  const Tensor past = before.defined() ? before.to(x.scalar_type())
                                       : torch::zeros({x.size(0), kept, x.size(2)}, x.options());
  // A copy, so that the state does not hold on to all of x.
  Tensor tail = steps >= kept ? x.narrow(1, steps - kept, kept).clone()
                              : torch::cat({past.narrow(1, steps, kept - steps), x}, 1);
  if (documents.starts.defined() && kept > 0) {
    // What is before the last start is not kept.
    const Tensor& starts = documents.starts;
    const Tensor of_tail = steps >= kept ? starts.narrow(1, steps - kept, kept)
                                         : torch::constant_pad_nd(starts, {kept - steps, 0}, 0);
    tail.masked_fill_((of_tail != starts.narrow(1, steps - 1, 1)).unsqueeze(2), 0);
  }
  return {ops::causal_convolution(x, weight_, past, documents.reset, bias_), tail};
}

}  // namespace pararnn::nn
