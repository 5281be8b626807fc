// The causal depthwise convolution as a module, which carries the inputs that the next steps see:
// ops/causal_convolution.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <utility>

#include "nn/documents.hpp"

namespace pararnn::nn {

/// What stands behind a convolution.
enum class ConvolutionEnding { kNothing, kBiasAndSilu };

/// The convolution with its taps and bias, at first uniform in ±1/sqrt(K).
struct CausalConvolution : torch::nn::Module {
  CausalConvolution(int64_t channels, int64_t width,
                    ConvolutionEnding ending = ConvolutionEnding::kNothing);

  /// x (B,T,d), and the inputs before it, (B,K-1,d) or undefined for zeros -> y (B,T,d), and the
  /// inputs before what comes next. Rows start anew where documents begin.
  std::pair<torch::Tensor, torch::Tensor> forward(const torch::Tensor& x,
                                                  const torch::Tensor& before,
                                                  const Documents& documents = {});

 private:
  torch::Tensor weight_;  // (K,d)
  torch::Tensor bias_;    // (d), or undefined
};

}  // namespace pararnn::nn
