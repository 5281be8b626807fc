#include "nn/recompute.hpp"

#include <torch/autograd.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "ops/rows.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A function as a value that a graph can keep.
struct Kept : torch::CustomClassHolder {
  explicit Kept(TensorFunction function) : f(std::move(function)) {}
  TensorFunction f;
};

// The parameters are inputs too, so that the backward pass returns their gradients, as that of any
// other operation does. The function is called inside it, with a graph of its own.
struct Recomputed : torch::autograd::Function<Recomputed> {
  static variable_list forward(AutogradContext* context, torch::TensorList tensors,
                               const c10::intrusive_ptr<Kept>& kept, int64_t inputs) {
    context->saved_data["f"] = c10::IValue::make_capsule(kept);
    context->saved_data["inputs"] = inputs;
    context->save_for_backward(tensors.vec());
    context->set_materialize_grads(false);
    return kept->f(tensors.slice(0, inputs).vec());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    ops::refuse_second_derivative();
    const auto kept =
        c10::static_intrusive_pointer_cast<Kept>(context->saved_data["f"].toCapsule());
    const auto inputs = context->saved_data["inputs"].toInt();
    variable_list tensors = context->get_saved_variables();
    for (int64_t i = 0; i < inputs; ++i) {
      const Tensor& given = tensors[i];
      tensors[i] = given.detach().set_requires_grad(given.requires_grad());
    }
    variable_list results, of_results;
    {
      const torch::AutoGradMode recording(true);
      variable_list all = kept->f({tensors.begin(), tensors.begin() + inputs});
      for (size_t i = 0; i < all.size(); ++i) {
        if (!all[i].requires_grad() || !gradients[i].defined()) continue;
        results.push_back(std::move(all[i]));
        of_results.push_back(gradients[i]);
      }
    }
    variable_list wanted;
    std::ranges::copy_if(tensors, std::back_inserter(wanted), &Tensor::requires_grad);
    const variable_list found =
        torch::autograd::grad(results, wanted, of_results, /*retain_graph=*/false,
                              /*create_graph=*/false, /*allow_unused=*/true);
    variable_list of_tensors(tensors.size() + 2);  // the function and the count have none
    for (size_t i = 0, next = 0; i < tensors.size(); ++i) {
      if (tensors[i].requires_grad()) of_tensors[i] = found[next++];
    }
    return of_tensors;
  }
};

}  // namespace

std::vector<Tensor> recompute(const TensorFunction& f, const std::vector<Tensor>& inputs,
                              const std::vector<Tensor>& parameters) {
  if (!torch::GradMode::is_enabled()) return f(inputs);
  // A graph takes none that is undefined.
  std::vector<bool> defined;
  std::vector<Tensor> tensors;
  for (const Tensor& input : inputs) {
    defined.push_back(input.defined());
    if (input.defined()) tensors.push_back(input);
  }
  const auto count = static_cast<int64_t>(tensors.size());
  tensors.insert(tensors.end(), parameters.begin(), parameters.end());
  const TensorFunction of_defined = [f, defined](const std::vector<Tensor>& given) {
    std::vector<Tensor> all;
    auto next = given.begin();
    for (const bool there : defined) all.push_back(there ? *next++ : Tensor());
    return f(all);
  };
  return Recomputed::apply(torch::TensorList(tensors), c10::make_intrusive<Kept>(of_defined),
                           count);
}

}  // namespace pararnn::nn
