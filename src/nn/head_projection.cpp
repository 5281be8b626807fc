#include "nn/head_projection.hpp"

#include <cmath>

#include "nn/initial_weights.hpp"

namespace pararnn::nn {

using torch::Tensor;

HeadProjection::HeadProjection(int64_t width, int64_t heads, int64_t inputs) : inputs_(inputs) {
  const int64_t channels = width / heads;
  weight_ = register_parameter("weight",
                               torch::randn({heads, inputs * channels, channels}, weight_options())
                                   .div_(std::sqrt(double(channels))));
  bias_ = register_parameter("bias", torch::zeros({heads, inputs * channels}, weight_options()));
}

Tensor HeadProjection::bias_of(int64_t input) const {
  return bias_.view({bias_.size(0), inputs_, -1}).select(1, input);
}

}  // namespace pararnn::nn
