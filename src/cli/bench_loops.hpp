// What the engine is timed against: the recurrence as people write it without a parallel scan.
// (The scalar loop is reference.hpp's.)
#pragma once

#include <torch/types.h>

#include <string>
#include <tuple>

#include "pararnn/reference.hpp"

namespace pararnn::cli {

/// The scalar loop with time outside and channels inside, vectorised over channels by the compiler
/// with the C library's vector functions and relaxed arithmetic; one thread. Arguments as
/// reference_forward. Throws Error for a cell that does not exist.
void vectorized_loop(const std::string& cell, const Shape& shape, const float* u, const float* w,
                     const float* h0, float* y, float* hT);

/// The loop over steps of LibTorch operations, with autograd if the arguments require it. Shapes
/// as scan's: returns y and hT.
std::tuple<torch::Tensor, torch::Tensor> torch_loop(const std::string& cell, const torch::Tensor& u,
                                                    const torch::Tensor& w,
                                                    const torch::Tensor& h0);

}  // namespace pararnn::cli
