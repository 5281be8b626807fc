// _scan_forward and _scan_backward as compilers of graphs want them: all results are tensors, so
// that none is a constant of the graph. Their shapes are described by whoever compiles (the Python
// package), where a number of steps may be unknown.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "ops/scan_kernels.hpp"

namespace pararnn {
namespace {

using torch::Tensor;

std::tuple<Tensor, Tensor, Tensor, Tensor> compiled_scan(const Tensor& u, const Tensor& w,
                                                         const std::optional<Tensor>& h0,
                                                         const std::string& cell,
                                                         const std::string& plan, int64_t chunk,
                                                         int64_t burn_in, double tolerance) {
  const auto [y, hT, checkpoints, remembers] = call_scan_forward(
      u, w, h0, cell, {plan, chunk, burn_in, tolerance}, checkpoint_interval_on(u.device()));
  return {y, hT, checkpoints, torch::scalar_tensor(remembers, torch::kBool)};
}

std::tuple<Tensor, Tensor, Tensor> compiled_scan_backward(
    const Tensor& u, const Tensor& w, const Tensor& checkpoints, const Tensor& remembers,
    const Tensor& dy, const Tensor& dhT, const std::string& cell, const std::string& plan,
    int64_t chunk, int64_t burn_in, double tolerance) {
  // The adjoint forgets as the state does: where that reached beyond the burn-in, so will this.
  const std::string own = plan == "auto" && remembers.item<bool>() ? "newton" : plan;
  return call_scan_backward(u, w, checkpoints, dy, dhT, cell, {own, chunk, burn_in, tolerance});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def("_checkpoint_interval(Device device) -> int", &checkpoint_interval_on);
  m.def(
      "_compiled_scan(Tensor u, Tensor w, Tensor? h0, str cell, str plan, int chunk, int burn_in, "
      "float tolerance) -> (Tensor y, Tensor hT, Tensor checkpoints, Tensor remembers)");
  m.def(
      "_compiled_scan_backward(Tensor u, Tensor w, Tensor checkpoints, Tensor remembers, Tensor "
      "dy, "
      "Tensor dhT, str cell, str plan, int chunk, int burn_in, float tolerance) -> (Tensor du, "
      "Tensor dw, Tensor dh0)");
}

TORCH_LIBRARY_IMPL(pararnn, CompositeExplicitAutograd, m) {
  m.impl("_compiled_scan", &compiled_scan);
  m.impl("_compiled_scan_backward", &compiled_scan_backward);
}

// By themselves they have no derivative of either mode, and say so.
TORCH_LIBRARY_IMPL(pararnn, Autograd, m) {
  m.impl("_compiled_scan", torch::autograd::autogradNotImplementedFallback());
  m.impl("_compiled_scan_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace pararnn
