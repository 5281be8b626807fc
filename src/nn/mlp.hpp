// The MLP of a block, SwiGLU: y = W_out (silu(W_gate x) ⊙ W_value x), the two inner products in
// one.
#pragma once

#include "nn/linear.hpp"
#include "ops/swiglu/swiglu.hpp"

namespace pararnn::nn {

struct Mlp : torch::nn::Module {
  /// `gain` scales the initial output.
  Mlp(int64_t width, int64_t hidden, double gain) {
    input_ = register_module("input", std::make_shared<Linear>(width, 2 * hidden));
    output_ = register_module("output", std::make_shared<Linear>(hidden, width, gain));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return output_->forward(ops::swiglu(input_->forward(x)));
  }

 private:
  std::shared_ptr<Linear> input_, output_;
};

}  // namespace pararnn::nn
