// The linear recurrence of Mamba2 in tensor operations: what the engine is timed against.
#pragma once

#include <torch/types.h>

#include <cstdint>

namespace pararnn::bench {

/// State space duality (Dao and Gu 2024, "Transformers are SSMs", section 6), chunked: for each
/// head
///   S_t = exp(dt_t a) S_{t-1} + dt_t b_t x_t^T,   y_t = c_t^T S_t,   S_0 = 0,
/// within chunks as masked products of c and b, across chunks as one product with the decays
/// between them. x (B,T,H,P), dt (B,T,H), a (H), b and c (B,T,N), shared by the heads; returns y
/// (B,T,H,P). `chunk` steps a chunk.
torch::Tensor ssd(const torch::Tensor& x, const torch::Tensor& dt, const torch::Tensor& a,
                  const torch::Tensor& b, const torch::Tensor& c, int64_t chunk);

}  // namespace pararnn::bench
