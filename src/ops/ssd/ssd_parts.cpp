#include "ops/ssd/ssd_parts.hpp"

#include <limits>

#include "ops/rows.hpp"
#include "ops/ssd/ssd_cuda.hpp"

namespace pararnn::ops::ssd_parts {
namespace {

/// Zeros behind the last step of (B,T,...), up to whole chunks: (B,L,Q,...).
Tensor cut(const Tensor& x, int64_t chunk) {
  const int64_t missing = (chunk - x.size(1) % chunk) % chunk;
  Tensor whole = x;
  if (missing > 0) {
    auto sizes = x.sizes().vec();
    sizes[1] = missing;
    whole = torch::cat({x, torch::zeros(sizes, x.options())}, 1);
  }
  return whole.unflatten(1, {whole.size(1) / chunk, chunk});
}

/// (B,L,Q,H,...) -> (B,T,H,...), without what is behind step T.
Tensor joined(const Tensor& x, int64_t steps) { return x.flatten(1, 2).narrow(1, 0, steps); }

Tensor last_of(const Tensor& t) { return t.narrow(-1, t.size(-1) - 1, 1); }

/// t (B,L,H,...) where the mask (B,L,...) over the same steps holds; zeros elsewhere.
Tensor where(const Tensor& mask, const Tensor& t) { return t.masked_fill(~mask.unsqueeze(2), 0); }

/// Decays from the chunk's start to each step, (B,L,H,Q).
Tensor from_start(const Decays& decays) {
  const Tensor decay = decays.log.exp();
  return decays.segment.defined() ? where(decays.segment == 0, decay) : decay;
}
/// From each step to the chunk's end.
Tensor to_end(const Decays& decays) {
  const Tensor decay = (last_of(decays.log) - decays.log).exp();
  return decays.segment.defined() ? where(decays.segment == last_of(decays.segment), decay) : decay;
}
/// Through whole chunks, (B,L,H).
Tensor through(const Decays& decays) { return from_start(decays).select(-1, decays.chunk() - 1); }

/// From step j to step i, (B,L,H,Q,Q); zeros where j is behind i.
Tensor between(const Decays& decays) {
  const int64_t chunk = decays.chunk();
  const auto with = decays.log.options().dtype(torch::kBool);
  Tensor outside = torch::ones({chunk, chunk}, with).triu(1);
  if (decays.segment.defined()) {
    const Tensor s = decays.segment.unsqueeze(2);
    outside = outside | (s.unsqueeze(-1) != s.unsqueeze(-2));
  }
  // Masked before the exponential, which above the diagonal may be infinite.
  return (decays.log.unsqueeze(-1) - decays.log.unsqueeze(-2))
      .masked_fill(outside, -std::numeric_limits<double>::infinity())
      .exp();
}

/// (B,L,G,...) -> (B,L,H,...), each group once for each of its heads.
Tensor of_heads(const Tensor& t, int64_t heads) {
  return t.size(2) == heads ? t : t.repeat_interleave(heads / t.size(2), 2);
}

/// (B,L,Q,H,P) -> by group, and back.
Tensor by_group(const Tensor& x, int64_t groups) {
  return x.unflatten(3, {groups, x.size(3) / groups}).transpose(2, 3).contiguous();
}
Tensor of_steps(const Tensor& by_group) { return by_group.transpose(2, 3).flatten(3, 4); }

/// Numbers of (B,L,H,Q) beside (B,L,Q,H,P).
Tensor beside_channels(const Tensor& t) { return t.transpose(2, 3).unsqueeze(-1); }

}  // namespace

Decays decays_of(const Tensor& dt, const Tensor& a, const Tensor& reset, int64_t chunk) {
  Tensor segment;
  if (reset.defined()) segment = cut(reset, chunk).cumsum(-1, torch::kInt);
  if (has_ssd_kernels(dt)) return decays_cuda(dt, a, segment, chunk);
  Decays decays{.step = cut(dt, chunk).transpose(2, 3).contiguous(), .log = {}, .segment = segment};
  decays.log = (decays.step * a.unsqueeze(-1)).cumsum(-1);
  return decays;
}

Tensor in_chunks(const Tensor& x, int64_t chunk) {
  return cut(x, chunk).transpose(2, 3).contiguous();
}
void out_of_chunks(const Tensor& chunks, const Tensor& to) {
  to.copy_(joined(chunks.transpose(2, 3), to.size(1)));
}

Tensor masked_scores(const Tensor& scores, const Decays& decays) {
  if (has_ssd_kernels(scores)) return masked_scores_cuda(scores, decays);
  return (of_heads(scores, decays.heads()) * between(decays) * decays.step.unsqueeze(-2))
      .to(scores.scalar_type());
}

Packed pack(const Tensor& x, const Decays& decays, SsdScale scale, int64_t groups,
            bool with_heads) {
  if (has_ssd_kernels(x)) return pack_cuda(x, decays, scale, groups, with_heads);
  const Tensor steps = cut(x, decays.chunk());
  const Tensor factor =
      scale == SsdScale::kToEnd ? to_end(decays) * decays.step : from_start(decays);
  return {with_heads ? steps.transpose(2, 3).contiguous() : Tensor(),
          by_group((steps * beside_channels(factor)).to(x.scalar_type()), groups)};
}

Tensor carry(const Tensor& states, const Decays& decays, const Tensor& h0) {
  if (has_ssd_kernels(states)) return carry_cuda(states, decays, h0);
  const Tensor decay = through(decays).unsqueeze(-1).unsqueeze(-1);
  Tensor h = h0;
  for (int64_t chunk = 0; chunk < decays.chunks(); ++chunk) {
    const Tensor entering = h;
    h = decay.select(1, chunk) * h + states.select(1, chunk);
    states.select(1, chunk).copy_(entering);
  }
  return h;
}

Tensor join(const Tensor& within, const Tensor& across, const Decays& decays, const Tensor& x,
            const Tensor& d) {
  if (has_ssd_kernels(x)) return join_cuda(within, across, decays, x, d);
  const Tensor y = within.transpose(2, 3) + of_steps(across) * beside_channels(from_start(decays));
  return (joined(y, x.size(1)) + x * d.unsqueeze(-1)).to(x.scalar_type());
}

ScoresBackward masked_scores_backward(const Tensor& gradient, const Tensor& scores,
                                      const Decays& decays) {
  if (has_ssd_kernels(scores)) return masked_scores_backward_cuda(gradient, scores, decays);
  const Tensor decay = between(decays), of_each = of_heads(scores, decays.heads());
  const Tensor step = decays.step.unsqueeze(-2);
  // What is multiplied by dt_j.
  const Tensor products = gradient * decay * of_each;
  const Tensor before = products.tril(-1);
  ScoresBackward result{(gradient * decay * step)
                            .unflatten(2, {scores.size(2), decays.heads() / scores.size(2)})
                            .sum(3)
                            .to(scores.scalar_type()),
                        (before * step).sum(-1), before.sum(-2).unsqueeze(0),
                        products.diagonal(0, -2, -1)};
  gradient.copy_(of_each * decay * step);
  return result;
}

CarryBackward carry_backward(const Tensor& gradient, const Tensor& entering, const Decays& decays,
                             const Tensor& dhT) {
  if (has_ssd_kernels(gradient)) return carry_backward_cuda(gradient, entering, decays, dhT);
  const Tensor decay = through(decays).unsqueeze(-1).unsqueeze(-1);
  CarryBackward result{dhT, torch::empty_like(decays.log.narrow(-1, 0, 1))};
  for (int64_t chunk = decays.chunks() - 1; chunk >= 0; --chunk) {
    const Tensor after = result.h0;
    result.decay.select(1, chunk).squeeze(-1).copy_(
        (after * entering.select(1, chunk)).sum({-2, -1}));
    result.h0 = decay.select(1, chunk) * after + gradient.select(1, chunk);
    gradient.select(1, chunk).copy_(after);
  }
  return result;
}

JoinBackward join_backward(const Tensor& within, const Tensor& arriving, const Tensor& across,
                           const Decays& decays, const Tensor& x, const Tensor& dy, const Tensor& d,
                           const Tensor& dx) {
  if (has_join_backward_kernel(x))
    return join_backward_cuda(within, arriving, across, decays, x, dy, d, dx);
  const Tensor xs = cut(x, decays.chunk()).to(decays.log.scalar_type());
  const Tensor dys = cut(dy, decays.chunk());
  const Tensor arrives = of_steps(arriving);
  const Tensor factor = beside_channels(to_end(decays) * decays.step);
  dx.copy_(joined(within.transpose(2, 3) + arrives * factor + dys * d.unsqueeze(-1), x.size(1)));
  const auto dot = [](const Tensor& u, const Tensor& v) { return (u * v).sum(-1).transpose(2, 3); };
  return {dot(of_steps(across).to(decays.log.scalar_type()), dys), dot(xs, arrives), dot(xs, dys)};
}

DecaysBackward decays_backward(const Decays& decays, const Tensor& a, const ScoresBackward& scores,
                               const CarryBackward& carried, const JoinBackward& joined_parts,
                               int64_t steps) {
  if (has_ssd_kernels(decays.log))
    return decays_backward_cuda(decays, a, scores, carried, joined_parts, steps);
  const Tensor end = to_end(decays), arriving = end * joined_parts.arriving;
  const Tensor added = arriving * decays.step, columns = scores.columns.sum(0);
  // Of log_i; then of its part dt_t a, which is in all from step t on.
  const Tensor log =
      scores.rows - columns * decays.step + from_start(decays) * joined_parts.across - added;
  last_of(log) += (added.sum(-1) + through(decays) * carried.decay.sum(-1)).unsqueeze(-1);
  const Tensor part = log.flip(-1).cumsum(-1).flip(-1);
  const Tensor dt = part * a.unsqueeze(-1) + columns + scores.own + arriving;
  return {joined(dt.transpose(2, 3), steps), (part * decays.step).sum({0, 1, 3}),
          joined_parts.own.sum({0, 1, 3})};
}

}  // namespace pararnn::ops::ssd_parts
