// Forward-mode differentiation of a scan. The tangent of a cell is a cell too (core/tangent.hpp):
// its state carries the direction along which the state moves. So the tangent of a scan is a scan,
// run in parallel and verified like any other, and differentiable itself.
#include <fmt/ranges.h>
#include <torch/library.h>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "kernels/scan_arguments.hpp"
#include "ops/scan/scan_kernels.hpp"
#include "ops/scan/stable_tensor.hpp"

namespace pararnn {
namespace {

using torch::Tensor;

/// The tangent of a number that is itself constant.
Tensor tangent_or_zeros(const Tensor& t) {
  const Tensor tangent = t._fw_grad(/*level=*/0);
  return tangent.defined() ? tangent : torch::zeros_like(t._fw_primal(/*level=*/0));
}

std::tuple<Tensor, Tensor> scan_tangent_operator(const Tensor& u, const Tensor& w,
                                                 const std::optional<Tensor>& h0, const Tensor& du,
                                                 const Tensor& dw, const std::optional<Tensor>& dh0,
                                                 const std::string& cell, const std::string& plan,
                                                 int64_t chunk, int64_t burn_in, double tolerance,
                                                 const std::optional<Tensor>& cu_seqlens,
                                                 const std::optional<Tensor>& reset) {
  return scan_tangent(u, w, h0, du, dw, dh0, cell, {plan, chunk, burn_in, tolerance},
                      {cu_seqlens, reset});
}

void check_tangent(const char* name, const Tensor& tangent, const Tensor& of) {
  require(tangent.sizes() == of.sizes() && tangent.device() == of.device(),
          "scan: the tangent d{} has shape {} on {}, but should be like {}: {} on {}", name,
          fmt::join(tangent.sizes(), "x"), tangent.device().str(), name, fmt::join(of.sizes(), "x"),
          of.device().str());
}

}  // namespace

bool has_tangent(const Tensor& t) { return t._fw_grad(/*level=*/0).defined(); }

std::tuple<Tensor, Tensor> scan_tangent(const Tensor& u, const Tensor& w,
                                        const std::optional<Tensor>& h0, const Tensor& du,
                                        const Tensor& dw, const std::optional<Tensor>& dh0,
                                        const std::string& cell, const ScanOptions& options,
                                        const ScanSequences& sequences) {
  const CellDefinition& of = find_cell(cell);
  kernels::check_scan_arguments(to_stable(u), to_stable(w), to_stable(h0), of, 2,
                                to_stable(sequences));
  check_tangent("u", du, u);
  check_tangent("w", dw, w);
  if (h0 && dh0) check_tangent("h0", *dh0, *h0);
  require(h0 || !dh0, "scan: dh0 is the tangent of h0, which is not given");
  const CellDefinition& tangent = find_tangent(of);
  std::optional<Tensor> state;
  if (h0) state = torch::cat({dh0 ? dh0->to(h0->scalar_type()) : torch::zeros_like(*h0), *h0}, 1);
  const auto [dy, both] =
      scan(torch::cat({u, du.to(u.scalar_type())}, -2), torch::cat({w, dw.to(w.scalar_type())}, 0),
           state, tangent.key(), options, sequences);
  return {dy, both.narrow(1, 0, of.state)};
}

std::tuple<Tensor, Tensor> scan_of_duals(const Tensor& u, const Tensor& w,
                                         const std::optional<Tensor>& h0, const std::string& cell,
                                         const ScanOptions& options,
                                         const ScanSequences& sequences) {
  const auto primal = [](const Tensor& t) { return t._fw_primal(/*level=*/0); };
  const Tensor u_primal = primal(u), w_primal = primal(w);
  std::optional<Tensor> h0_primal, h0_tangent;
  if (h0) {
    h0_primal = primal(*h0);
    h0_tangent = tangent_or_zeros(*h0);
  }
  const auto [y, hT] = scan(u_primal, w_primal, h0_primal, cell, options, sequences);
  const auto [dy, dhT] = scan_tangent(u_primal, w_primal, h0_primal, tangent_or_zeros(u),
                                      tangent_or_zeros(w), h0_tangent, cell, options, sequences);
  return {at::_make_dual(y, dy, /*level=*/0), at::_make_dual(hT, dhT, /*level=*/0)};
}

TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def(
      "_scan_tangent(Tensor u, Tensor w, Tensor? h0, Tensor du, Tensor dw, Tensor? dh0, str cell, "
      "str plan='auto', int chunk=0, int burn_in=-1, float tolerance=0., Tensor? cu_seqlens=None, "
      "Tensor? reset=None) -> (Tensor dy, Tensor dhT)",
      &scan_tangent_operator);
}

}  // namespace pararnn
