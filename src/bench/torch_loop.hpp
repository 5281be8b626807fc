// A baseline: the loop over steps of LibTorch operations, as people write a cell without a parallel
// scan.
#pragma once

#include <torch/types.h>

#include <string>
#include <tuple>

namespace pararnn::bench {

/// Any cell, with autograd if the arguments require it. Shapes as scan's: returns y and hT.
std::tuple<torch::Tensor, torch::Tensor> torch_loop(const std::string& cell, const torch::Tensor& u,
                                                    const torch::Tensor& w,
                                                    const torch::Tensor& h0);

}  // namespace pararnn::bench
