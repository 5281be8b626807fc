// The functions of ssd_parts.hpp by the kernels of ssd_kernel.hpp.
#pragma once

#include "ops/ssd/ssd_parts.hpp"

namespace pararnn::ops::ssd_parts {

/// Whether there are kernels for x (B,T,H,P) or what was made of it. Beside them all that is in the
/// arithmetic's dtype is in float.
bool has_ssd_kernels(const Tensor& x);

/// Whether there is one for the gradients of join: a head's channels are a power of two, and not
/// too many for a warp.
bool has_join_backward_kernel(const Tensor& x);

Decays decays_cuda(const Tensor& dt, const Tensor& a, const Tensor& segment, int64_t chunk);
Tensor masked_scores_cuda(const Tensor& scores, const Decays& decays);
Packed pack_cuda(const Tensor& x, const Decays& decays, SsdScale scale, int64_t groups,
                 bool with_heads);
Tensor carry_cuda(const Tensor& states, const Decays& decays, const Tensor& h0);
Tensor join_cuda(const Tensor& within, const Tensor& across, const Decays& decays, const Tensor& x,
                 const Tensor& d);
ScoresBackward masked_scores_backward_cuda(const Tensor& gradient, const Tensor& scores,
                                           const Decays& decays);
CarryBackward carry_backward_cuda(const Tensor& gradient, const Tensor& entering,
                                  const Decays& decays, const Tensor& dhT);
JoinBackward join_backward_cuda(const Tensor& within, const Tensor& arriving, const Tensor& across,
                                const Decays& decays, const Tensor& x, const Tensor& dy,
                                const Tensor& d, const Tensor& dx);
DecaysBackward decays_backward_cuda(const Decays& decays, const Tensor& a,
                                    const ScoresBackward& scores, const CarryBackward& carried,
                                    const JoinBackward& joined, int64_t steps);

/// Whether there are kernels with products of their own, which make y of scores and states, and all
/// gradients: x (B,T,H,P) in bfloat16, of sizes that shared memory and registers have room for.
bool has_product_kernels(const Tensor& x, int64_t state);

/// The gradient of y as these kernels take it: dy itself, or a copy.
Tensor in_packs(const Tensor& dy);

/// y (B,T,H,P) of the scores c bᵀ (B,L,G,Q,Q), c (B,L,G,Q,N), the states that enter and x: what
/// masked_scores, two products and join give.
Tensor output_cuda(const Tensor& scores, const Tensor& c, const Tensor& states,
                   const Decays& decays, const Tensor& x, const Tensor& d);

/// What masked_scores_backward gives of the product dy_i x_jᵀ of each head; and dy_i · x_i,
/// (B,L,H,Q).
std::pair<ScoresBackward, Tensor> scores_backward_cuda(const Tensor& x, const Tensor& dy,
                                                       const Tensor& scores, const Decays& decays);

/// dx, written to `dx`, and what join_backward gives beside it, of which `own` is known.
/// `transposed_scores` are b cᵀ, `added` the gradient of what each chunk adds to the state.
JoinBackward output_backward_cuda(const Tensor& transposed_scores, const Tensor& b, const Tensor& c,
                                  const Tensor& added, const Tensor& entering, const Decays& decays,
                                  const Tensor& x, const Tensor& dy, const Tensor& d,
                                  const Tensor& own, const Tensor& dx);

}  // namespace pararnn::ops::ssd_parts
