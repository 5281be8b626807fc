#include "ops/halves/halves.hpp"

#include <torch/autograd.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <numeric>

namespace pararnn::ops {
namespace {

using torch::Tensor;

using Shapes = std::vector<std::vector<int64_t>>;

int64_t numbers_of(torch::IntArrayRef shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

/// x (...,d) -> its parts, which share its memory.
std::vector<Tensor> parts_of(const Tensor& x, const Shapes& shapes) {
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (const auto& shape : shapes) {
    const int64_t width = numbers_of(shape);
    const Tensor part = x.narrow(-1, begin, width);
    parts.push_back(shape.size() == 1 ? part : part.unflatten(-1, shape));
    begin += width;
  }
  return parts;
}

/// The gradients of all parts, in one tensor.
class JoinedGradient : public torch::CustomClassHolder {
 public:
  JoinedGradient(const Tensor& whole, Shapes shapes)
      : sizes_(whole.sizes().vec()), options_(whole.options()), shapes_(std::move(shapes)) {}

  /// A part for whoever writes it; undefined if somebody has it.
  Tensor take(size_t part) {
    const std::lock_guard lock(mutex_);
    if (!all_.defined()) {
      all_ = torch::empty(sizes_, options_);
      free_ = parts_of(all_, shapes_);
      taken_.assign(free_.size(), {});
    }
    const Tensor given = std::exchange(free_[part], {});
    if (given.defined()) taken_[part] = given;
    return given;
  }

  /// The gradient of the whole, given those of the parts, of which some may be undefined. Those
  /// that were not made in their place are copied there; but all are joined anew where somebody
  /// took a part that did not come back, as others were added to it, and may hold on to it. The
  /// next backward pass begins anew.
  Tensor join(const torch::autograd::variable_list& gradients) {
    const std::lock_guard lock(mutex_);
    const Tensor all = std::exchange(all_, {});
    const std::vector<Tensor> taken = std::exchange(taken_, {}), free = std::exchange(free_, {});
    if (!all.defined()) return concatenate(gradients);
    for (size_t i = 0; i < taken.size(); ++i) {
      if (taken[i].defined() && !gradients[i].is_same(taken[i])) return concatenate(gradients);
    }
    for (size_t i = 0; i < free.size(); ++i) {
      if (!free[i].defined()) continue;
      if (gradients[i].defined()) {
        free[i].copy_(gradients[i]);
      } else {
        free[i].zero_();
      }
    }
    return all;
  }

 private:
  /// By operations that can be differentiated.
  Tensor concatenate(const torch::autograd::variable_list& gradients) const {
    const int64_t leading = int64_t(sizes_.size()) - 1;
    std::vector<Tensor> parts;
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (gradients[i].defined()) {
        parts.push_back(gradients[i].flatten(leading));
      } else {
        auto sizes = sizes_;
        sizes.back() = numbers_of(shapes_[i]);
        parts.push_back(torch::zeros(sizes, options_));
      }
    }
    return torch::cat(parts, -1);
  }

  const std::vector<int64_t> sizes_;
  const torch::TensorOptions options_;
  const Shapes shapes_;
  std::mutex mutex_;
  Tensor all_;
  std::vector<Tensor> free_, taken_;
};

struct SplitParts : torch::autograd::Function<SplitParts> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& x, const Shapes& shapes) {
    context->set_materialize_grads(false);
    context->saved_data["gradient"] =
        c10::IValue::make_capsule(c10::make_intrusive<JoinedGradient>(x, shapes));
    return parts_of(x, shapes);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto defined = [](const Tensor& gradient) { return gradient.defined(); };
    if (std::ranges::none_of(gradients, defined)) return {Tensor(), Tensor()};
    const auto holder = context->saved_data["gradient"].toCapsule();
    return {static_cast<JoinedGradient&>(*holder).join(gradients), Tensor()};
  }
};

}  // namespace

std::vector<Tensor> split_parts(const Tensor& x, const Shapes& shapes) {
  if (!torch::GradMode::is_enabled() || !x.requires_grad()) return parts_of(x, shapes);
  return SplitParts::apply(x, shapes);
}

std::pair<Tensor, Tensor> split_halves(const Tensor& x) {
  const int64_t width = x.size(-1) / 2;
  const std::vector<Tensor> halves = split_parts(x, {{width}, {width}});
  return {halves[0], halves[1]};
}

c10::IValue place_of_gradient(const Tensor& input) {
  if (!input.requires_grad()) return {};
  const auto edge = torch::autograd::impl::gradient_edge(input);
  const auto* split = dynamic_cast<torch::autograd::CppNode<SplitParts>*>(edge.function.get());
  if (!split) return {};
  const c10::IValue& gradient = split->ctx_.saved_data.at("gradient");
  return c10::ivalue::Tuple::create(gradient, static_cast<int64_t>(edge.input_nr));
}

Tensor empty_gradient(const Tensor& input, const c10::IValue& place) {
  Tensor part;
  if (!place.isNone()) {
    const auto& parts = place.toTupleRef().elements();
    const auto holder = parts[0].toCapsule();
    part = static_cast<JoinedGradient&>(*holder).take(size_t(parts[1].toInt()));
  }
  return part.defined() ? part : torch::empty(input.sizes(), input.options());
}

}  // namespace pararnn::ops
