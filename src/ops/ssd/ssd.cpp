#include "ops/ssd/ssd.hpp"

#include <ATen/record_function.h>
#include <torch/autograd.h>

#include <bit>
#include <tuple>

#include "base/error.hpp"
#include "ops/halves/halves.hpp"
#include "ops/rows.hpp"
#include "ops/ssd/ssd_cuda.hpp"
#include "ops/ssd/ssd_parts.hpp"
#include "ops/ssd/ssd_problem.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;
using torch::autograd::variable_list;

Tensor transposed(const Tensor& matrices) { return matrices.transpose(-1, -2); }

/// (B,L,G,Q,R,P) as matrices of all heads of a group, (B,L,G,Q,R P); and back.
Tensor flat(const Tensor& by_group) { return by_group.flatten(4, 5); }
Tensor by_head_of(const Tensor& flat, int64_t channels) {
  return flat.unflatten(4, {flat.size(4) / channels, channels});
}
/// States (B,L,H,P,N) as matrices of all heads of a group, (B,L,G,R P,N).
Tensor of_group(const Tensor& states, int64_t groups) {
  return states.view({states.size(0), states.size(1), groups, -1, states.size(4)});
}

// What bounds it on a GPU is memory. With Q = N = 2 P = 128, in multiples of what x takes, the
// forward pass moves 9: pack 2, the states' product 2, carry 2, y from scores, states and x 3. The
// backward pass moves 20: packs 4, the gradient of the scores 2, the products of states 2, carry 3,
// dx 5, those of b and c 4. x and y alone would be 2, and the products at a GPU's peak take half of
// that time.
struct Ssd : torch::autograd::Function<Ssd> {
  static variable_list forward(torch::autograd::AutogradContext* context, const Tensor& x,
                               const Tensor& dt, const Tensor& a, const Tensor& b_steps,
                               const Tensor& c_steps, const Tensor& d,
                               const std::optional<Tensor>& start,
                               const std::optional<Tensor>& reset) {
    using namespace ssd_parts;
    const int64_t groups = b_steps.size(2), chunk = ssd_chunk(x.size(1));
    const Decays decays = decays_of(dt, a, reset.value_or(Tensor()), chunk);
    const Tensor b = in_chunks(b_steps, chunk), c = in_chunks(c_steps, chunk);
    const bool fused = has_product_kernels(x, b.size(4));
    const Tensor scores = at::matmul(c, transposed(b));
    const auto [by_head, to_end] = pack(x, decays, SsdScale::kToEnd, groups, !fused);
    const Tensor h0 =
        start ? *start
              : torch::zeros({x.size(0), x.size(2), x.size(3), b.size(4)}, decays.log.options());
    const Tensor states = at::matmul(transposed(flat(to_end)), b)
                              .view({x.size(0), decays.chunks(), x.size(2), x.size(3), b.size(4)});
    const Tensor hT = carry(states, decays, h0);
    Tensor y;
    if (fused) {
      y = output_cuda(scores, c, states, decays, x, d);
    } else {
      const Tensor within = at::matmul(masked_scores(scores, decays), by_head);
      const Tensor across = at::matmul(c, transposed(of_group(states, groups)));
      y = join(within, by_head_of(across, x.size(3)), decays, x, d);
    }
    context->save_for_backward({x, dt, a, b_steps, c_steps, d, states, reset.value_or(Tensor())});
    context->saved_data["started"] = start.has_value();
    context->saved_data["x"] = place_of_gradient(x);
    context->saved_data["b"] = place_of_gradient(b_steps);
    context->saved_data["c"] = place_of_gradient(c_steps);
    context->set_materialize_grads(false);
    return {y, hT};
  }

  static variable_list backward(torch::autograd::AutogradContext* context,
                                const variable_list& gradients) {
    using namespace ssd_parts;
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &dt = saved[1], &a = saved[2], &d = saved[5], &states = saved[6];
    const int64_t steps = x.size(1), channels = x.size(3), groups = saved[3].size(2);
    const int64_t chunk = ssd_chunk(steps);
    const Decays decays = decays_of(dt, a, saved[7], chunk);
    const Tensor b = in_chunks(saved[3], chunk), c = in_chunks(saved[4], chunk);
    const bool fused = has_product_kernels(x, b.size(4));
    Tensor dy = gradients[0].defined() ? gradients[0].to(x.scalar_type())
                                       : torch::zeros(x.sizes(), x.options());
    if (fused) dy = in_packs(dy);
    const Tensor dhT = gradients[1].defined()
                           ? gradients[1]
                           : torch::zeros(states.select(1, 0).sizes(), decays.log.options());

    const auto [x_by_head, to_end] = pack(x, decays, SsdScale::kToEnd, groups, !fused);
    const auto [dy_by_head, from_start] = pack(dy, decays, SsdScale::kFromStart, groups, !fused);
    const Tensor scores = at::matmul(c, transposed(b));
    Tensor masked, own;
    ScoresBackward of_scores;
    if (fused) {
      std::tie(of_scores, own) = scores_backward_cuda(x, dy, scores, decays);
    } else {
      masked = at::matmul(dy_by_head, transposed(x_by_head));
      of_scores = masked_scores_backward(masked, scores, decays);
    }
    const Tensor dstates = at::matmul(transposed(flat(from_start)), c).view(states.sizes());
    const CarryBackward carried = carry_backward(dstates, states, decays, dhT);
    const Tensor entering = of_group(states, groups), added = of_group(dstates, groups);
    const Tensor dx = empty_gradient(x, context->saved_data["x"]);
    JoinBackward joined;
    if (fused) {
      joined = output_backward_cuda(at::matmul(b, transposed(c)), b, c, dstates, states, decays, x,
                                    dy, d, own, dx);
    } else {
      const Tensor within = at::matmul(transposed(masked), dy_by_head);
      const Tensor arriving = at::matmul(b, transposed(added)),
                   across = at::matmul(c, transposed(entering));
      joined = join_backward(within, by_head_of(arriving, channels), by_head_of(across, channels),
                             decays, x, dy, d, dx);
    }
    const DecaysBackward of_decays = decays_backward(decays, a, of_scores, carried, joined, steps);

    const auto in_steps = [&](const Tensor& gradient, size_t input, const char* name) {
      const Tensor to = empty_gradient(saved[input], context->saved_data[name]);
      out_of_chunks(gradient, to);
      return to;
    };
    const Tensor db = at::matmul(flat(to_end), added) + at::matmul(transposed(of_scores.scores), c);
    const Tensor dc = at::matmul(flat(from_start), entering) + at::matmul(of_scores.scores, b);
    return {dx,
            of_decays.dt,
            of_decays.a,
            in_steps(db, 3, "b"),
            in_steps(dc, 4, "c"),
            of_decays.d,
            context->saved_data["started"].toBool() ? carried.h0 : Tensor(),
            Tensor()};
  }
};

}  // namespace

std::pair<Tensor, Tensor> ssd(const Tensor& x, const Tensor& dt, const Tensor& a, const Tensor& b,
                              const Tensor& c, const Tensor& d, const std::optional<Tensor>& h0,
                              const Tensor& reset) {
  RECORD_FUNCTION("pararnn::ssd", c10::ArrayRef<const c10::IValue>{});
  require(x.numel() > 0 && b.size(3) > 0, "ssd needs at least one number of each size");
  require(x.size(2) % b.size(2) == 0, "groups must divide heads: {} does not divide {}", b.size(2),
          x.size(2));
  const auto arithmetic = arithmetic_dtype(x.scalar_type());
  const auto start = h0 ? std::make_optional(h0->to(arithmetic)) : std::nullopt;
  const auto results =
      Ssd::apply(x, dt.to(arithmetic), a.to(arithmetic), b, c, d.to(arithmetic), start,
                 reset.defined() ? std::make_optional(reset) : std::nullopt);
  return {results[0], results[1]};
}

bool ssd_stores_scores(const torch::TensorOptions& x, int64_t steps, int64_t channels,
                       int64_t state) {
  const auto has_room = [](int64_t size, int64_t most) {
    return size >= 32 && size <= most && std::has_single_bit(static_cast<uint64_t>(size));
  };
  return !x.device().is_cuda() || x.dtype() != torch::kBFloat16 || ssd_chunk(steps) < 32 ||
         !has_room(channels, kSsdMostChannels) || !has_room(state, kSsdMostState);
}

std::pair<Tensor, Tensor> ssd_step(const Tensor& x, const Tensor& dt, const Tensor& a,
                                   const Tensor& b, const Tensor& c, const Tensor& d,
                                   const Tensor& h) {
  const auto arithmetic = arithmetic_dtype(x.scalar_type());
  const int64_t heads_of_group = x.size(1) / b.size(1);
  const auto of_heads = [&](const Tensor& t) {  // (B,G,N) -> (B,H,N)
    return t.to(arithmetic).repeat_interleave(heads_of_group, 1);
  };
  const Tensor wide = x.to(arithmetic);
  const Tensor decay = (dt * a).exp().unsqueeze(-1).unsqueeze(-1);
  const Tensor next =
      decay * h + (wide * dt.unsqueeze(-1)).unsqueeze(-1) * of_heads(b).unsqueeze(2);
  const Tensor y = at::matmul(next, of_heads(c).unsqueeze(-1)).squeeze(-1) + d.unsqueeze(-1) * wide;
  return {y.to(x.scalar_type()), next};
}

}  // namespace pararnn::ops
