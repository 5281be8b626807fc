// The state-space recurrence of Mamba2, by its duality with a masked matrix product (Dao and Gu,
// "Transformers are SSMs", arXiv:2405.21060): for each head, with x_t of P channels, b_t and c_t of
// N components and a scalar decay,
//
//   h_t = exp(a dt_t) h_{t-1} + dt_t x_t b_tᵀ,   y_t = h_t c_t + d x_t.
//
// Steps are cut into chunks of Q. Within one, y = (c bᵀ ⊙ decays) x is a product of matrices for
// all steps at once; only the state at a chunk's end is handed on.
#pragma once

#include <torch/types.h>

#include <optional>
#include <utility>

namespace pararnn::ops {

/// x (B,T,H,P), dt (B,T,H), positive, a (H), negative, b and c (B,T,G,N) in x's dtype, whose groups
/// H/G neighbouring heads share, d (H), h0 (B,H,P,N) or none for zeros -> y (B,T,H,P) in x's dtype,
/// and the state hT (B,H,P,N) after step T in that of the arithmetic: float, or double for a double
/// x. dt, a, d and h0 are taken in it. Where `reset` (B,T), bool, is given, the state is zeros
/// before each step that it marks. x, b and c may be parts of wider tensors. Differentiable, once.
std::pair<torch::Tensor, torch::Tensor> ssd(const torch::Tensor& x, const torch::Tensor& dt,
                                            const torch::Tensor& a, const torch::Tensor& b,
                                            const torch::Tensor& c, const torch::Tensor& d,
                                            const std::optional<torch::Tensor>& h0 = {},
                                            const torch::Tensor& reset = {});

/// The same for one step: x (B,H,P), dt (B,H), b and c (B,G,N), h (B,H,P,N) -> y and the next h.
/// The recurrence itself, in LibTorch's operations.
std::pair<torch::Tensor, torch::Tensor> ssd_step(const torch::Tensor& x, const torch::Tensor& dt,
                                                 const torch::Tensor& a, const torch::Tensor& b,
                                                 const torch::Tensor& c, const torch::Tensor& d,
                                                 const torch::Tensor& h);

/// Steps Q of a chunk, of so many in all, a power of two: the products within a chunk grow with it,
/// and the states between chunks are fewer.
inline int64_t ssd_chunk(int64_t steps) {
  constexpr int64_t kShortest = 16, kLongest = 128;
  int64_t chunk = kShortest;
  while (chunk < steps && chunk < kLongest) chunk *= 2;
  return chunk;
}

/// Whether ssd stores scores of all pairs of a chunk's steps for each head: wherever the GPU's
/// kernels that multiply do not take these sizes, which are a head's channels and a state's
/// components, or the dtype. `x`: of its dtype and device.
bool ssd_stores_scores(const torch::TensorOptions& x, int64_t steps, int64_t channels,
                       int64_t state);

}  // namespace pararnn::ops
