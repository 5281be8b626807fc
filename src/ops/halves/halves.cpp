#include "ops/halves/halves.hpp"

#include <torch/autograd.h>
#include <torch/custom_class.h>

#include <array>
#include <mutex>

namespace pararnn::ops {
namespace {

using torch::Tensor;

Tensor half_of(const Tensor& x, int64_t half) {
  const int64_t width = x.size(-1) / 2;
  return x.narrow(-1, half * width, width);
}

/// The gradients of both halves, in one tensor.
class JoinedGradient : public torch::CustomClassHolder {
 public:
  /// A half for whoever writes it; undefined if somebody has it.
  Tensor take(const Tensor& input, int64_t half) {
    const std::lock_guard lock(mutex_);
    if (taken_[half].defined()) return {};
    if (!both_.defined()) {
      std::vector<int64_t> sizes = input.sizes().vec();
      sizes.back() *= 2;
      both_ = torch::empty(sizes, input.options());
    }
    return taken_[half] = half_of(both_, half);
  }

  /// The gradient of the whole, given those of the halves, of which one may be undefined. They are
  /// joined where both are what was taken: a gradient that others were added to is not. The next
  /// backward pass begins anew.
  Tensor join(const torch::autograd::variable_list& halves) {
    const std::lock_guard lock(mutex_);
    const std::array<Tensor, 2> taken = std::exchange(taken_, {});
    const Tensor both = std::exchange(both_, {});
    const auto in_place = [&](int half) {
      return taken[half].defined() && halves[half].is_same(taken[half]);
    };
    if (in_place(0) && in_place(1)) return both;
    const auto or_zeros = [](const Tensor& half, const Tensor& other) {
      return half.defined() ? half : torch::zeros_like(other);
    };
    return torch::cat({or_zeros(halves[0], halves[1]), or_zeros(halves[1], halves[0])}, -1);
  }

 private:
  std::mutex mutex_;
  Tensor both_;
  std::array<Tensor, 2> taken_;
};

struct SplitHalves : torch::autograd::Function<SplitHalves> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& x) {
    context->set_materialize_grads(false);
    context->saved_data["gradient"] =
        c10::IValue::make_capsule(c10::make_intrusive<JoinedGradient>());
    return {half_of(x, 0), half_of(x, 1)};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& halves) {
    if (!halves[0].defined() && !halves[1].defined()) return {Tensor()};
    const auto holder = context->saved_data["gradient"].toCapsule();
    return {static_cast<JoinedGradient&>(*holder).join(halves)};
  }
};

}  // namespace

std::pair<Tensor, Tensor> split_halves(const Tensor& x) {
  if (!torch::GradMode::is_enabled() || !x.requires_grad()) return {half_of(x, 0), half_of(x, 1)};
  const auto halves = SplitHalves::apply(x);
  return {halves[0], halves[1]};
}

c10::IValue place_of_gradient(const Tensor& input) {
  if (!input.requires_grad()) return {};
  const auto edge = torch::autograd::impl::gradient_edge(input);
  const auto* split = dynamic_cast<torch::autograd::CppNode<SplitHalves>*>(edge.function.get());
  if (!split) return {};
  const c10::IValue& gradient = split->ctx_.saved_data.at("gradient");
  return c10::ivalue::Tuple::create(gradient, static_cast<int64_t>(edge.input_nr));
}

Tensor empty_gradient(const Tensor& input, const c10::IValue& place) {
  Tensor half;
  if (!place.isNone()) {
    const auto& parts = place.toTupleRef().elements();
    const auto holder = parts[0].toCapsule();
    half = static_cast<JoinedGradient&>(*holder).take(input, parts[1].toInt());
  }
  return half.defined() ? half : torch::empty(input.sizes(), input.options());
}

}  // namespace pararnn::ops
