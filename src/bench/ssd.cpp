#include "bench/ssd.hpp"

#include <limits>

namespace pararnn::bench {
namespace {

using torch::Tensor;

/// exp(later_i - earlier_j) where j comes before i by at least `apart`, otherwise 0; (..,K) each,
/// gives (..,K,K).
Tensor decay_between(const Tensor& later, const Tensor& earlier, int64_t apart) {
  const int64_t size = later.size(-1);
  const Tensor outside =
      torch::ones({size, size}, later.options().dtype(torch::kBool)).triu(1 - apart);
  return (later.unsqueeze(-1) - earlier.unsqueeze(-2))
      .masked_fill(outside, -std::numeric_limits<double>::infinity())
      .exp();
}

/// Zeros behind the last step, up to whole chunks.
Tensor whole_chunks(const Tensor& t, int64_t chunk) {
  const int64_t missing = (chunk - t.size(1) % chunk) % chunk;
  if (missing == 0) return t;
  std::vector<int64_t> size = t.sizes().vec();
  size[1] = missing;
  return torch::cat({t, torch::zeros(size, t.options())}, 1);
}

}  // namespace

Tensor ssd(const Tensor& x_in, const Tensor& dt_in, const Tensor& a, const Tensor& b_in,
           const Tensor& c_in, int64_t Q) {
  const int64_t steps = x_in.size(1);
  const Tensor x = whole_chunks(x_in, Q), dt = whole_chunks(dt_in, Q);
  const Tensor b = whole_chunks(b_in, Q), c = whole_chunks(c_in, Q);
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2), P = x.size(3), N = b.size(2);
  const int64_t C = T / Q;
  const auto type = x.scalar_type();
  const auto wide = type == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;

  // Logarithms of the decay since the chunk began, the step itself included: (B,C,H,Q).
  const Tensor decay =
      (dt.to(wide) * a.to(wide)).view({B, C, Q, H}).permute({0, 1, 3, 2}).cumsum(-1);
  const Tensor whole = decay.select(-1, Q - 1);  // (B,C,H)
  const Tensor input = (x * dt.unsqueeze(-1)).view({B, C, Q, H, P});
  const Tensor keys = b.view({B, C, Q, N}), queries = c.view({B, C, Q, N});

  const Tensor scores = queries.matmul(keys.transpose(-1, -2)).unsqueeze(2);  // (B,C,1,Q,Q)
  const Tensor within = (scores * decay_between(decay, decay, 0).to(type))
                            .matmul(input.permute({0, 1, 3, 2, 4}));  // (B,C,H,Q,P)

  // What each chunk adds to the state, by its end; then the states at chunks' starts.
  const Tensor to_end = (whole.unsqueeze(-1) - decay).exp().permute({0, 1, 3, 2}).to(type);
  const Tensor added = keys.transpose(-1, -2).matmul(
      (input * to_end.unsqueeze(-1)).reshape({B, C, Q, H * P}));  // (B,C,N,H P)
  const Tensor ends = whole.cumsum(1).permute({0, 2, 1});         // (B,H,C)
  const Tensor starts = ends - whole.permute({0, 2, 1});
  const Tensor entering =
      decay_between(starts, ends, 1)
          .to(type)
          .matmul(added.view({B, C, N, H, P}).permute({0, 3, 1, 2, 4}).reshape({B, H, C, N * P}))
          .view({B, H, C, N, P})
          .permute({0, 2, 3, 1, 4})
          .reshape({B, C, N, H * P});
  const Tensor from_start = decay.exp().permute({0, 1, 3, 2}).to(type).unsqueeze(-1);
  const Tensor before = queries.matmul(entering).view({B, C, Q, H, P}) * from_start;

  return (within.permute({0, 1, 3, 2, 4}) + before).reshape({B, T, H, P}).narrow(1, 0, steps);
}

}  // namespace pararnn::bench
