#include "ops/rotary/rotary.hpp"

#include <ATen/record_function.h>
#include <torch/autograd.h>

#include <bit>
#include <cmath>
#include <numbers>

#include "ops/cuda_kernels.hpp"
#include "ops/rotary/rotary_problem.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

static_assert(kMostRotaryChannels == 2 * kMostRotaryPairs);

/// The tensors rotated by their positions, or back with a direction of -1.
torch::autograd::variable_list rotate_on_cuda(Tensor q, Tensor k, const Tensor& positions,
                                              double base, int direction) {
  for (Tensor* x : {&q, &k}) {
    if (x->stride(3) != 1) *x = x->contiguous();
  }
  const Tensor rotated_q = torch::empty(q.sizes(), q.options());
  const Tensor rotated_k = torch::empty(k.sizes(), k.options());
  const auto of = [](const Tensor& x, const Tensor& y) {
    return RotaryTensor{static_cast<int>(x.size(2)),
                        x.stride(0),
                        x.stride(1),
                        x.stride(2),
                        x.data_ptr(),
                        y.data_ptr()};
  };
  const int64_t pairs = q.size(3) / 2;
  Rotary problem{.batch = q.size(0),
                 .steps = q.size(1),
                 .pairs = static_cast<int>(pairs),
                 .direction = direction,
                 .position_batch_stride = positions.size(0) == 1 ? 0 : positions.stride(0),
                 .position_step_stride = positions.stride(1),
                 .positions = reinterpret_cast<const long long*>(positions.data_ptr<int64_t>()),
                 .tensors = {of(q, rotated_q), of(k, rotated_k)},
                 .turns = {}};
  set_turns(problem.turns, problem.pairs, base);
  int64_t width =
      std::min<int64_t>(access_width({q, k, rotated_q, rotated_k}), 16 / q.element_size());
  while (pairs % width != 0) width /= 2;
  const auto room = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(pairs)));
  const int64_t tokens = std::max<int64_t>(1, kRotaryThreads / room);
  launch_kernel("rotary/rotary_kernel.hpp",
                fmt::format("rotate_pairs<{}, {}, {}>", storage_name(q.scalar_type()), width, room),
                q, (problem.batch * problem.steps + tokens - 1) / tokens, kRotaryThreads, problem);
  return {rotated_q, rotated_k};
}

struct FusedRotary : torch::autograd::Function<FusedRotary> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& q, const Tensor& k,
                                                const Tensor& positions, double base) {
    context->save_for_backward({positions});
    context->saved_data["base"] = base;
    return rotate_on_cuda(q, k, positions, base, 1);
  }
  /// What is turned has a gradient that is turned back.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const Tensor positions = context->get_saved_variables()[0];
    const double base = context->saved_data["base"].toDouble();
    auto results = rotate_on_cuda(gradients[0], gradients[1], positions, base, -1);
    results.resize(4);  // of positions and base there is none
    return results;
  }
};

}  // namespace

void set_turns(unsigned long long* turns, int pairs, double base) {
  for (int i = 0; i < pairs; ++i) {
    const double of_step = std::pow(base, -double(i) / pairs) / (2 * std::numbers::pi);
    turns[i] = static_cast<unsigned long long>(std::ldexp(of_step, 64));
  }
}

std::pair<Tensor, Tensor> rotary(const Tensor& q, const Tensor& k, const Tensor& positions,
                                 double base) {
  RECORD_FUNCTION("pararnn::rotary", c10::ArrayRef<const c10::IValue>{});
  if (has_kernels(q, q.scalar_type()) && k.scalar_type() == q.scalar_type() && q.size(3) % 2 == 0 &&
      q.size(3) <= kMostRotaryChannels && q.numel() > 0) {
    const auto rotated = FusedRotary::apply(q, k, positions, base);
    return {rotated[0], rotated[1]};
  }
  return rotary_definition(q, k, positions, base);
}

std::pair<Tensor, Tensor> rotary_definition(const Tensor& q, const Tensor& k,
                                            const Tensor& positions, double base) {
  const int64_t channels = q.size(3);
  require(channels % 2 == 0, "rotary position embedding needs an even number of channels, not {}",
          channels);
  const auto in_double = torch::dtype(torch::kDouble).device(q.device());
  const Tensor frequencies = torch::pow(base, torch::arange(0, channels, 2, in_double) / -channels);
  const Tensor angles = (positions.to(torch::kDouble).unsqueeze(2) * frequencies).unsqueeze(2);
  const auto arithmetic = arithmetic_dtype(q.scalar_type());
  const Tensor cosines = angles.cos().to(arithmetic), sines = angles.sin().to(arithmetic);
  const auto rotate = [&](const Tensor& x) {
    const auto halves = x.to(arithmetic).chunk(2, 3);
    const Tensor &a = halves[0], &b = halves[1];
    return torch::cat({a * cosines - b * sines, b * cosines + a * sines}, 3).to(x.scalar_type());
  };
  return {rotate(q), rotate(k)};
}

Tensor positions_of(int64_t steps, torch::Device device, const Tensor& start, const Tensor& reset) {
  const Tensor times = torch::arange(steps, torch::dtype(torch::kLong).device(device)).unsqueeze(0);
  const Tensor positions = start.defined() ? times + start.unsqueeze(1) : times;
  if (!reset.defined()) return positions;
  const Tensor starts = std::get<0>(torch::where(reset, times, -torch::ones_like(times)).cummax(1));
  return torch::where(starts < 0, positions, times - starts);
}

}  // namespace pararnn::ops
