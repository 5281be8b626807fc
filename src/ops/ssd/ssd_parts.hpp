// What stands between the matrix products of ops/ssd: each function is one kernel on a GPU, and
// LibTorch's operations elsewhere, which are its definition.
//
// Steps are L chunks of Q, the last of which may end behind step T, where all is zeros. Layouts:
// "by head" is (B,L,H,Q,P), a matrix for each head; "by group" is (B,L,G,Q,R,P), a matrix of all R
// heads of a group, which share its b and c. A state is (B,L,H,P,N), which is both.
#pragma once

#include <torch/types.h>

#include "ops/ssd/ssd_problem.hpp"

namespace pararnn::ops::ssd_parts {

using torch::Tensor;

/// How much is left of earlier steps. i and j count the steps of a chunk from 0; a row starts anew
/// before some of them.
struct Decays {
  Tensor step;     // dt, (B,L,H,Q)
  Tensor log;      // of the decay from the chunk's start to the end of step i, (B,L,H,Q)
  Tensor segment;  // how often the row started anew in the chunk by step i, (B,L,Q) int, or none

  int64_t chunks() const { return log.size(1); }
  int64_t heads() const { return log.size(2); }
  int64_t chunk() const { return log.size(3); }
};

/// dt (B,T,H), a (H), reset (B,T) or undefined.
Decays decays_of(const Tensor& dt, const Tensor& a, const Tensor& reset, int64_t chunk);

/// x (B,T,G,N) -> (B,L,G,Q,N).
Tensor in_chunks(const Tensor& x, int64_t chunk);
/// The reverse, for T steps; writes to `to`.
void out_of_chunks(const Tensor& chunks, const Tensor& to);

/// scores c bᵀ (B,L,G,Q,Q) -> scores_ij exp(log_i - log_j) dt_j where step j came before i or is
/// it, and the row did not start anew between; zeros elsewhere. (B,L,H,Q,Q).
Tensor masked_scores(const Tensor& scores, const Decays& decays);

/// x (B,T,H,P) by head as it is, if it is wanted, and by group with each step times its factor.
struct Packed {
  Tensor by_head, scaled;
};
Packed pack(const Tensor& x, const Decays& decays, SsdScale scale, int64_t groups,
            bool with_heads = true);

/// The state through all chunks, from h0 (B,H,P,N). `states`: what each chunk adds to it; becomes
/// the state that enters each. Returns the last one, in h0's dtype.
Tensor carry(const Tensor& states, const Decays& decays, const Tensor& h0);

/// y (B,T,H,P) = within (by head) + across (by group) times the decay from the start + d x.
Tensor join(const Tensor& within, const Tensor& across, const Decays& decays, const Tensor& x,
            const Tensor& d);

/// The gradient of the scores, summed over the heads of a group, given that of the masked scores,
/// which becomes the masked scores again. With E_ij the latter two multiplied:
struct ScoresBackward {
  Tensor scores;   // (B,L,G,Q,Q)
  Tensor rows;     // Σ_{j<i} E_ij, (B,L,H,Q)
  Tensor columns;  // Σ_{i>j} E_ij / dt_j, in parts to be added up, (K,B,L,H,Q)
  Tensor own;      // E_ii / dt_i
};
ScoresBackward masked_scores_backward(const Tensor& gradient, const Tensor& scores,
                                      const Decays& decays);

/// The reverse of carry: `gradient` is that of the states that enter, and becomes that of what each
/// chunk adds; dhT that of the last.
struct CarryBackward {
  Tensor h0;
  Tensor decay;  // of the decay of whole chunks, in parts to be added up, (B,L,H,K)
};
CarryBackward carry_backward(const Tensor& gradient, const Tensor& entering, const Decays& decays,
                             const Tensor& dhT);

/// dx = within (by head) + arriving (by group) times the factor to the end + d dy, written to
/// `dx`; and products of vectors of P channels, (B,L,H,Q) each.
struct JoinBackward {
  Tensor across;    // dy · across
  Tensor arriving;  // x · arriving
  Tensor own;       // dy · x
};
JoinBackward join_backward(const Tensor& within, const Tensor& arriving, const Tensor& across,
                           const Decays& decays, const Tensor& x, const Tensor& dy, const Tensor& d,
                           const Tensor& dx);

/// Gradients of dt (B,T,H), a (H) and d (H), from what the others give.
struct DecaysBackward {
  Tensor dt, a, d;
};
DecaysBackward decays_backward(const Decays& decays, const Tensor& a, const ScoresBackward& scores,
                               const CarryBackward& carried, const JoinBackward& joined,
                               int64_t steps);

}  // namespace pararnn::ops::ssd_parts
