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

bool has_rotary_kernel(const Tensor& q, const Tensor& k) {
  return has_kernels(q, q.scalar_type()) && k.scalar_type() == q.scalar_type() &&
         q.size(3) % 2 == 0 && q.size(3) <= kMostRotaryChannels && q.numel() > 0;
}

void rotate_on_cuda(const RotaryPart& q, const RotaryPart& k, const Tensor& positions, double base,
                    int direction, const RotaryPart& v) {
  const auto place = [](const Tensor& x) {
    return RotaryPlace{x.stride(0), x.stride(1), x.stride(2), x.data_ptr()};
  };
  const auto of = [&](const RotaryPart& part) {
    return part.from.defined()
               ? RotaryTensor{static_cast<int>(part.from.size(2)), place(part.from), place(part.to)}
               : RotaryTensor{};
  };
  const Tensor& like = q.from;
  const int64_t pairs = like.size(3) / 2;
  Rotary problem{.batch = like.size(0),
                 .steps = like.size(1),
                 .pairs = static_cast<int>(pairs),
                 .direction = direction,
                 .position_batch_stride = positions.size(0) == 1 ? 0 : positions.stride(0),
                 .position_step_stride = positions.stride(1),
                 .positions = reinterpret_cast<const long long*>(positions.data_ptr<int64_t>()),
                 .tensors = {of(q), of(k), of(v)},
                 .turns = {}};
  set_turns(problem.turns, problem.pairs, base);
  int64_t width = std::min<int64_t>(access_width({q.from, q.to, k.from, k.to, v.from, v.to}),
                                    16 / like.element_size());
  while (pairs % width != 0) width /= 2;
  const auto room = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(pairs)));
  const int64_t tokens = std::max<int64_t>(1, kRotaryThreads / room);
  launch_kernel(
      "rotary/rotary_kernel.hpp",
      fmt::format("rotate_pairs<{}, {}, {}>", storage_name(like.scalar_type()), width, room), like,
      (problem.batch * problem.steps + tokens - 1) / tokens, kRotaryThreads, problem);
}

void require_pairs(int64_t channels) {
  require(channels % 2 == 0, "rotary position embedding needs an even number of channels, not {}",
          channels);
}

/// Cosines and sines (B,T,n/2) or (1,T,n/2) of the angles at positions, in the arithmetic's dtype.
std::pair<Tensor, Tensor> turns_at(const Tensor& positions, int64_t channels, double base,
                                   torch::ScalarType arithmetic) {
  const auto in_double = torch::dtype(torch::kDouble).device(positions.device());
  const Tensor frequencies = torch::pow(base, torch::arange(0, channels, 2, in_double) / -channels);
  const Tensor angles = positions.to(torch::kDouble).unsqueeze(2) * frequencies;
  return {angles.cos().to(arithmetic), angles.sin().to(arithmetic)};
}

/// Turns n channels by cosines and sines of n/2.
template <class T>
PARARNN_VECTORISED void turn_head(const T* from, T* to, const Arithmetic<T>* cosines,
                                  const Arithmetic<T>* sines, int64_t pairs, int direction) {
#pragma omp simd
  for (int64_t i = 0; i < pairs; ++i) {
    const Arithmetic<T> a = widen(from[i]), b = widen(from[i + pairs]);
    const Arithmetic<T> sine = direction * sines[i];
    to[i] = narrow<T>(a * cosines[i] - b * sine);
    to[i + pairs] = narrow<T>(b * cosines[i] + a * sine);
  }
}

template <class T>
void turn_on_cpu(const RotaryPart& part, const Tensor& cosines, const Tensor& sines,
                 int direction) {
  using A = Arithmetic<T>;
  const Tensor &from = part.from, &to = part.to;
  const int64_t steps = from.size(1), heads = from.size(2), pairs = from.size(3) / 2;
  const auto place = [](const Tensor& x, int64_t row, int64_t step, int64_t head) {
    return static_cast<T*>(x.data_ptr()) + row * x.stride(0) + step * x.stride(1) +
           head * x.stride(2);
  };
  for_each_block(from.size(0) * steps, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t row = token / steps, step = token % steps;
      const int64_t at = ((cosines.size(0) == 1 ? 0 : row) * steps + step) * pairs;
      for (int64_t head = 0; head < heads; ++head) {
        turn_head<T>(place(from, row, step, head), place(to, row, step, head),
                     cosines.data_ptr<A>() + at, sines.data_ptr<A>() + at, pairs, direction);
      }
    }
  });
}

/// Both turned, in memory of their own.
torch::autograd::variable_list rotated(Tensor q, Tensor k, const Tensor& positions, double base,
                                       int direction) {
  for (Tensor* x : {&q, &k}) {
    if (x->stride(3) != 1) *x = x->contiguous();
  }
  const RotaryPart of_q{q, torch::empty(q.sizes(), q.options())};
  const RotaryPart of_k{k, torch::empty(k.sizes(), k.options())};
  rotate_on_cuda(of_q, of_k, positions, base, direction, {});
  return {of_q.to, of_k.to};
}

struct FusedRotary : torch::autograd::Function<FusedRotary> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& q, const Tensor& k,
                                                const Tensor& positions, double base) {
    context->save_for_backward({positions});
    context->saved_data["base"] = base;
    return rotated(q, k, positions, base, 1);
  }
  /// What is turned has a gradient that is turned back.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const Tensor positions = context->get_saved_variables()[0];
    const double base = context->saved_data["base"].toDouble();
    auto results = rotated(gradients[0], gradients[1], positions, base, -1);
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
  if (has_rotary_kernel(q, k)) {
    const auto both = FusedRotary::apply(q, k, positions, base);
    return {both[0], both[1]};
  }
  return rotary_definition(q, k, positions, base);
}

std::pair<Tensor, Tensor> rotary_definition(const Tensor& q, const Tensor& k,
                                            const Tensor& positions, double base) {
  const int64_t channels = q.size(3);
  require_pairs(channels);
  const auto arithmetic = arithmetic_dtype(q.scalar_type());
  const auto turns = turns_at(positions, channels, base, arithmetic);
  const Tensor cosines = turns.first.unsqueeze(2), sines = turns.second.unsqueeze(2);
  const auto rotate = [&](const Tensor& x) {
    const auto halves = x.to(arithmetic).chunk(2, 3);
    const Tensor &a = halves[0], &b = halves[1];
    return torch::cat({a * cosines - b * sines, b * cosines + a * sines}, 3).to(x.scalar_type());
  };
  return {rotate(q), rotate(k)};
}

void rotate_into(const RotaryPart& q, const RotaryPart& k, const Tensor& positions, double base,
                 int direction, const RotaryPart& v) {
  RECORD_FUNCTION("pararnn::rotary", c10::ArrayRef<const c10::IValue>{});
  const torch::NoGradGuard no_grad;
  const auto in_rows = [](const RotaryPart& part) {
    return !part.from.defined() || (part.from.stride(3) == 1 && part.to.stride(3) == 1);
  };
  if (has_rotary_kernel(q.from, k.from) && in_rows(q) && in_rows(k) && in_rows(v)) {
    return rotate_on_cuda(q, k, positions, base, direction, v);
  }
  if (has_loops(q.from, q.from.scalar_type()) && in_rows(q) && in_rows(k)) {
    require_pairs(q.from.size(3));
    with_type(q.from.scalar_type(), [&]<class T>(T) {
      const auto arithmetic = torch::CppTypeToScalarType<Arithmetic<T>>::value;
      const auto [cosines, sines] = turns_at(positions, q.from.size(3), base, arithmetic);
      for (const RotaryPart& part : {q, k}) turn_on_cpu<T>(part, cosines, sines, direction);
    });
    if (v.from.defined()) v.to.copy_(v.from);
    return;
  }
  const auto [turned_q, turned_k] = rotary_definition(q.from, k.from, direction * positions, base);
  q.to.copy_(turned_q);
  k.to.copy_(turned_k);
  if (v.from.defined()) v.to.copy_(v.from);
}

Tensor positions_of(int64_t steps, torch::Device device, const Tensor& start, const Tensor& reset) {
  const Tensor times = torch::arange(steps, torch::dtype(torch::kLong).device(device)).unsqueeze(0);
  const Tensor positions = start.defined() ? times + start.unsqueeze(1) : times;
  if (!reset.defined()) return positions;
  const Tensor starts = std::get<0>(torch::where(reset, times, -torch::ones_like(times)).cummax(1));
  return torch::where(starts < 0, positions, times - starts);
}

}  // namespace pararnn::ops
