// The derivatives of the operators, and the shapes of their results. The work is done by
// _scan_forward and _scan_backward of src/kernels.
//
// Saved for the backward pass: u, w, and the checkpoints of the state, S numbers of the
// arithmetic's type per channel every 16 steps on a CPU (S/4 bytes a step and channel in fp32) and
// every 8 on a GPU (S/2). Neither y nor any other state is kept.
#include "ops/scan/scan.hpp"

#include <torch/autograd.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "kernels/scan_arguments.hpp"
#include "ops/scan/scan_kernels.hpp"
#include "ops/scan/stable_tensor.hpp"
#include "pararnn/cpu/problem.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/plan.hpp"

namespace pararnn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<Tensor>;

/// An operator of src/kernels.
template <class Function>
c10::TypedOperatorHandle<Function> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

struct ScanFunction : torch::autograd::Function<ScanFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& u, const Tensor& w,
                               const Optional& h0, const std::string& cell,
                               const ScanOptions& options, const Optional& cu_seqlens,
                               const Optional& reset) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [y, hT, checkpoints, remembers] = call_scan_forward(
        u, w, h0, cell, options, checkpoint_interval_on(u.device()), {cu_seqlens, reset});
    // Its initial states are needed again where a row has several.
    const bool starts = cu_seqlens.has_value();
    context->save_for_backward({u, w, checkpoints, remembers, starts && h0 ? *h0 : Tensor(),
                                cu_seqlens.value_or(Tensor()), reset.value_or(Tensor())});
    context->saved_data["cell"] = cell;
    context->saved_data["plan"] = options.plan;
    context->saved_data["chunk"] = options.chunk;
    context->saved_data["burn_in"] = options.burn_in;
    context->saved_data["tolerance"] = options.tolerance;
    context->saved_data["has_h0"] = h0.has_value();
    return {y, hT};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require(!torch::GradMode::is_enabled(),
            "scan has no second derivative; call backward without create_graph");
    const variable_list saved = context->get_saved_variables();
    auto& data = context->saved_data;
    const ScanOptions options{data["plan"].toStringRef(), data["chunk"].toInt(),
                              data["burn_in"].toInt(), data["tolerance"].toDouble()};
    const auto given = [&](size_t i) {
      return saved[i].defined() ? Optional(saved[i]) : std::nullopt;
    };
    const auto [du, dw, dh0] = call_scan_backward(saved[0], saved[1], saved[2], gradients[0],
                                                  gradients[1], data["cell"].toStringRef(), options,
                                                  saved[3], given(4), {given(5), given(6)});
    variable_list results(7);
    results[0] = du;
    results[1] = dw.to(saved[1].scalar_type());
    if (data["has_h0"].toBool()) results[2] = dh0;
    return results;
  }
};

std::tuple<Tensor, Tensor> scan_operator(const Tensor& u, const Tensor& w, const Optional& h0,
                                         const std::string& cell, const std::string& plan,
                                         int64_t chunk, int64_t burn_in, double tolerance,
                                         const Optional& cu_seqlens, const Optional& reset) {
  ScanOptions options{plan, chunk, burn_in, tolerance};
  // Plans that are learned differ from call to call, and in the last digits of the results.
  if (plan == "auto" && u.is_cuda() && at::globalContext().deterministicAlgorithms()) {
    options.plan = "planner";
  }
  if (has_tangent(u) || has_tangent(w) || (h0 && has_tangent(*h0))) {
    return scan_of_duals(u, w, h0, cell, options, {cu_seqlens, reset});
  }
  const bool differentiable =
      torch::GradMode::is_enabled() &&
      (u.requires_grad() || w.requires_grad() || (h0 && h0->requires_grad()));
  if (!differentiable) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_scan(u, w, h0, cell, options, {cu_seqlens, reset});
  }
  // By its key, which goes on meaning this cell when another is given the name.
  const variable_list results =
      ScanFunction::apply(u, w, h0 ? h0->to(arithmetic_type(u.scalar_type())) : h0,
                          find_cell(cell).key(), options, cu_seqlens, reset);
  return {results[0], results[1]};
}

std::tuple<Tensor, Tensor> step_operator(const Tensor& u, const Tensor& w, const Tensor& h,
                                         const std::string& cell) {
  torch::NoGradGuard no_grad;
  if (has_tangent(u) || has_tangent(w) || has_tangent(h)) {
    const auto [y, next] = scan_of_duals(u.unsqueeze(1), w, h, cell, {.plan = "sequential"});
    return {y.select(1, 0), next};
  }
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return call_step(u, w, h, cell);
}

// Shapes, from the tensors that the kernels make of tensors without memory.

kernels::ForwardTensors forward_on_meta(const Tensor& u, const Tensor& w, const Optional& h0,
                                        const std::string& cell, const ScanOptions& options,
                                        const kernels::ForwardRequest& request) {
  check_plan_options(options.plan, options.chunk, options.burn_in);
  auto tensors =
      kernels::forward_tensors(to_stable(u), to_stable(w), to_stable(h0), find_cell(cell), request);
  kernels::tolerance_for(options.tolerance, tensors.arithmetic);
  return tensors;
}

std::tuple<Tensor, Tensor> scan_meta(const Tensor& u, const Tensor& w, const Optional& h0,
                                     const std::string& cell, const std::string& plan,
                                     int64_t chunk, int64_t burn_in, double tolerance,
                                     const Optional& cu_seqlens, const Optional& reset) {
  const auto tensors = forward_on_meta(u, w, h0, cell, {plan, chunk, burn_in, tolerance},
                                       {.sequences = to_stable(ScanSequences{cu_seqlens, reset})});
  return {from_stable(tensors.y), from_stable(tensors.hT)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> scan_forward_meta(
    const Tensor& u, const Tensor& w, const Optional& h0, const std::string& cell,
    const std::string& plan, int64_t chunk, int64_t burn_in, double tolerance, int64_t interval,
    const Optional& cu_seqlens, const Optional& reset) {
  const auto tensors = forward_on_meta(
      u, w, h0, cell, {plan, chunk, burn_in, tolerance},
      {.checkpoint_interval = interval, .sequences = to_stable(ScanSequences{cu_seqlens, reset})});
  const int64_t known = interval == cpu::kCheckpointInterval ? 1 : 0;
  return {from_stable(tensors.y), from_stable(tensors.hT), from_stable(*tensors.checkpoints),
          torch::empty({known}, u.options().dtype(torch::kBool))};
}

std::tuple<Tensor, Tensor, Tensor> scan_backward_meta(
    const Tensor& u, const Tensor& w, const Tensor& checkpoints, const Optional&, const Tensor& dy,
    const Tensor& dhT, const std::string& cell, const std::string& plan, int64_t chunk,
    int64_t burn_in, double tolerance, const Optional& h0, const Optional& cu_seqlens,
    const Optional& reset) {
  check_plan_options(plan, chunk, burn_in);
  const auto tensors = kernels::backward_tensors(
      to_stable(u), to_stable(w), to_stable(checkpoints), to_stable(dy), to_stable(dhT),
      find_cell(cell), {to_stable(h0), to_stable(ScanSequences{cu_seqlens, reset})});
  kernels::tolerance_for(tolerance, tensors.arithmetic);
  return {from_stable(tensors.du), from_stable(tensors.dw), from_stable(tensors.dh0)};
}

std::tuple<Tensor, Tensor> step_meta(const Tensor& u, const Tensor& w, const Tensor& h,
                                     const std::string& cell) {
  const auto tensors = forward_on_meta(u, w, h, cell, {}, {.axes = 1});
  return {from_stable(tensors.y), from_stable(tensors.hT)};
}

}  // namespace

torch::ScalarType arithmetic_type(torch::ScalarType type) { return kernels::arithmetic_type(type); }

int64_t checkpoint_interval_on(const torch::Device& device) {
  return device.is_cuda() ? cuda::kCheckpointInterval : cpu::kCheckpointInterval;
}

std::tuple<Tensor, Tensor> call_scan(const Tensor& u, const Tensor& w, const Optional& h0,
                                     const std::string& cell, const ScanOptions& o,
                                     const ScanSequences& s) {
  static const auto op = find_operator<std::tuple<Tensor, Tensor>(
      const Tensor&, const Tensor&, const Optional&, const std::string&, const std::string&,
      int64_t, int64_t, double, const Optional&, const Optional&)>("pararnn::_scan");
  return op.call(u, w, h0, cell, o.plan, o.chunk, o.burn_in, o.tolerance, s.cu_seqlens, s.reset);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> call_scan_forward(
    const Tensor& u, const Tensor& w, const Optional& h0, const std::string& cell,
    const ScanOptions& o, int64_t checkpoint_interval, const ScanSequences& s) {
  static const auto op = find_operator<std::tuple<Tensor, Tensor, Tensor, Tensor>(
      const Tensor&, const Tensor&, const Optional&, const std::string&, const std::string&,
      int64_t, int64_t, double, int64_t, const Optional&, const Optional&)>(
      "pararnn::_scan_forward");
  return op.call(u, w, h0, cell, o.plan, o.chunk, o.burn_in, o.tolerance, checkpoint_interval,
                 s.cu_seqlens, s.reset);
}

std::tuple<Tensor, Tensor, Tensor> call_scan_backward(const Tensor& u, const Tensor& w,
                                                      const Tensor& checkpoints, const Tensor& dy,
                                                      const Tensor& dhT, const std::string& cell,
                                                      const ScanOptions& o,
                                                      const Optional& remembers, const Optional& h0,
                                                      const ScanSequences& s) {
  static const auto op = find_operator<std::tuple<Tensor, Tensor, Tensor>(
      const Tensor&, const Tensor&, const Tensor&, const Optional&, const Tensor&, const Tensor&,
      const std::string&, const std::string&, int64_t, int64_t, double, const Optional&,
      const Optional&, const Optional&)>("pararnn::_scan_backward");
  return op.call(u, w, checkpoints, remembers, dy, dhT, cell, o.plan, o.chunk, o.burn_in,
                 o.tolerance, h0, s.cu_seqlens, s.reset);
}

std::tuple<Tensor, Tensor> call_step(const Tensor& u, const Tensor& w, const Tensor& h,
                                     const std::string& cell) {
  static const auto op = find_operator<std::tuple<Tensor, Tensor>(
      const Tensor&, const Tensor&, const Tensor&, const std::string&)>("pararnn::_step");
  return op.call(u, w, h, cell);
}

std::tuple<Tensor, Tensor> scan(const Tensor& u, const Tensor& w, const Optional& h0,
                                const std::string& cell, const ScanOptions& options,
                                const ScanSequences& sequences) {
  return scan_operator(u, w, h0, cell, options.plan, options.chunk, options.burn_in,
                       options.tolerance, sequences.cu_seqlens, sequences.reset);
}

std::tuple<Tensor, Tensor> step(const Tensor& u, const Tensor& w, const Tensor& h,
                                const std::string& cell) {
  return step_operator(u, w, h, cell);
}

// The kernels' library defines the operators, and refuses the derivatives of scan. The internal
// ones, called directly, have no derivative of either mode, and say so.
TORCH_LIBRARY_IMPL(pararnn, Autograd, m) {
  m.impl("scan", &scan_operator);
  m.impl("step", &step_operator);
  for (const char* name : {"_scan", "_scan_forward", "_scan_backward", "_step"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

TORCH_LIBRARY_IMPL(pararnn, Meta, m) {
  m.impl("_scan", &scan_meta);
  m.impl("_scan_forward", &scan_forward_meta);
  m.impl("_scan_backward", &scan_backward_meta);
  m.impl("_step", &step_meta);
}

}  // namespace pararnn
