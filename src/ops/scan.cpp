// Schemas, argument checks, autograd and shape inference of the operators. The work is done by
// _scan_forward and _scan_backward, which each device implements.
//
// Saved for the backward pass: u, w, and the checkpoints of the state, S numbers of the
// arithmetic's type per channel every 16 steps on a CPU (S/4 bytes a step and channel in fp32) and
// every 8 on a GPU (S/2). Neither y nor any other state is kept.
#include "ops/scan.hpp"

#include <torch/autograd.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <cmath>
#include <mutex>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "ops/scan_kernels.hpp"
#include "pararnn/cpu/problem.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/plan.hpp"

namespace pararnn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::string text_of(torch::IntArrayRef shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += fmt::format("{}{}", text.size() > 1 ? "," : "", size);
  return text + ")";
}
std::string shape_of(const Tensor& t) { return text_of(t.sizes()); }

/// More than any memory holds, and few enough that no number of bytes overflows.
constexpr int64_t kMostNumbers = int64_t{1} << 46;

bool is_countable(const Tensor& t) {
  int64_t numbers = 1;
  for (const int64_t size : t.sizes()) {
    if (__builtin_mul_overflow(numbers, std::max<int64_t>(size, 1), &numbers)) return false;
  }
  return numbers <= kMostNumbers;
}

/// A tensor of numbers that the engine reads, on u's device.
void check_tensor(const char* name, const Tensor& t, const Tensor& u) {
  const auto type = t.scalar_type();
  require(type == torch::kFloat16 || type == torch::kBFloat16 || type == torch::kFloat32 ||
              type == torch::kFloat64,
          "scan: {} has dtype {}, but should be float16, bfloat16, float32 or float64", name,
          c10::toString(type));
  require(t.layout() == torch::kStrided, "scan: {} is sparse, but should be dense", name);
  require(t.device() == u.device(), "scan: {} is on {}, but u is on {}; move one of them", name,
          t.device().str(), u.device().str());
  // Of forward-mode differentiation; without this its result would be a tangent of zeros.
  require(!has_tangent(t),
          "scan: {} has a tangent, which the internal operators do not carry; call scan or step",
          name);
}

void check_shape(const char* name, const Tensor& t, torch::IntArrayRef expected, const Tensor& u,
                 const CellDefinition& cell) {
  require(t.sizes() == expected,
          "scan: {} has shape {}, but for the cell {} and u of shape {} it should be {}", name,
          shape_of(t), cell.name, shape_of(u), text_of(expected));
}

std::mutex statistics_mutex;
// Read when they are asked for: on a GPU that waits for the device.
std::pair<ReadStatistics, ReadStatistics> statistics;

struct ScanFunction : torch::autograd::Function<ScanFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& u, const Tensor& w,
                               const std::optional<Tensor>& h0, const std::string& cell,
                               const ScanOptions& options) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [y, hT, checkpoints, remembers] =
        call_scan_forward(u, w, h0, cell, options, checkpoint_interval_on(u.device()));
    context->save_for_backward({u, w, checkpoints});
    context->saved_data["cell"] = cell;
    // The adjoint forgets as the state does: where that reached beyond the burn-in, so will this.
    context->saved_data["plan"] =
        options.plan == "auto" && remembers ? std::string("newton") : options.plan;
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
    const auto [du, dw, dh0] =
        call_scan_backward(saved[0], saved[1], saved[2], gradients[0], gradients[1],
                           data["cell"].toStringRef(), options);
    return {du, dw.to(saved[1].scalar_type()), data["has_h0"].toBool() ? dh0 : Tensor(), Tensor(),
            Tensor()};
  }
};

std::tuple<Tensor, Tensor> scan_operator(const Tensor& u, const Tensor& w,
                                         const std::optional<Tensor>& h0,
                                         const std::string& cell_name, const std::string& plan,
                                         int64_t chunk, int64_t burn_in, double tolerance) {
  if (has_tangent(u) || has_tangent(w) || (h0 && has_tangent(*h0))) {
    return scan_of_duals(u, w, h0, cell_name, {plan, chunk, burn_in, tolerance});
  }
  check_scan_arguments(u, w, h0, cell_name);
  check_plan_options(plan, chunk, burn_in);
  const auto type = arithmetic_type(u.scalar_type());
  tolerance_for(tolerance, type);
  // By its key, which goes on meaning this cell when another is given the name.
  const std::string cell = find_cell(cell_name).key();
  std::optional<Tensor> state;
  if (h0) state = h0->to(type).contiguous();
  const ScanOptions options{plan, chunk, burn_in, tolerance};
  const bool differentiable =
      torch::GradMode::is_enabled() &&
      (u.requires_grad() || w.requires_grad() || (state && state->requires_grad()));
  if (!differentiable) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [y, hT, checkpoints, remembers] = call_scan_forward(u, w, state, cell, options, 0);
    return {y, hT};
  }
  const variable_list results = ScanFunction::apply(u, w, state, cell, options);
  return {results[0], results[1]};
}

std::tuple<Tensor, Tensor> step_operator(const Tensor& u, const Tensor& w, const Tensor& h,
                                         const std::string& cell) {
  require(u.dim() == 3 || u.dim() == 4,
          "step: u has shape {}, but should be (B,U,D), or (B,H,U,D/H) for H heads", shape_of(u));
  torch::NoGradGuard no_grad;
  const auto [y, next] = scan_operator(u.unsqueeze(1), w, h, cell, "sequential", 0, -1, 0);
  return {y.select(1, 0), next};
}

std::tuple<Tensor, Tensor, Tensor, bool> scan_forward_meta(const Tensor& u, const Tensor& w,
                                                           const std::optional<Tensor>& h0,
                                                           const std::string& cell,
                                                           const std::string& plan, int64_t chunk,
                                                           int64_t burn_in, double tolerance,
                                                           int64_t checkpoint_interval) {
  check_plan_options(plan, chunk, burn_in);
  tolerance_for(tolerance, arithmetic_type(u.scalar_type()));
  const ForwardTensors tensors = forward_tensors(u, w, h0, cell, checkpoint_interval);
  return {tensors.y, tensors.hT, tensors.checkpoints, false};
}

std::tuple<Tensor, Tensor, Tensor> scan_backward_meta(const Tensor& u, const Tensor& w,
                                                      const Tensor& checkpoints, const Tensor& dy,
                                                      const Tensor& dhT, const std::string& cell,
                                                      const std::string& plan, int64_t chunk,
                                                      int64_t burn_in, double tolerance) {
  check_plan_options(plan, chunk, burn_in);
  tolerance_for(tolerance, arithmetic_type(u.scalar_type()));
  const BackwardTensors tensors = backward_tensors(u, w, checkpoints, dy, dhT, cell);
  return {tensors.du, tensors.dw, tensors.dh0};
}

}  // namespace

torch::ScalarType arithmetic_type(torch::ScalarType type) {
  return type == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}

double tolerance_for(double wanted, torch::ScalarType arithmetic) {
  require(wanted >= 0 && wanted <= kLargestTolerance,
          "scan: tolerance is {}, but should be above 0, up to {}, or 0 for the default", wanted,
          kLargestTolerance);
  if (wanted > 0) return wanted;
  return arithmetic == torch::kFloat64 ? kDefaultTolerance<double> : kDefaultTolerance<float>;
}

int64_t checkpoint_interval_on(const torch::Device& device) {
  return device.is_cuda() ? cuda::kCheckpointInterval : cpu::kCheckpointInterval;
}

int64_t checkpoint_count(int64_t steps, int64_t interval) {
  return interval == 0 ? 0 : (steps + interval - 1) / interval;
}

Tensor with_neighbouring_channels(const Tensor& t) {
  return t.size(-1) == 1 || t.stride(-1) == 1 ? t : t.contiguous();
}

ScanSizes check_scan_arguments(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                               const std::string& cell_name) {
  const CellDefinition& cell = find_cell(cell_name);
  check_tensor("u", u, u);
  check_tensor("w", w, u);
  if (h0) check_tensor("h0", *h0, u);
  require(u.dim() == 4 || u.dim() == 5,
          "scan: u has shape {}, but should be (B,T,U,D), or (B,T,H,U,D/H) for H heads",
          shape_of(u));
  require(is_countable(u), "scan: u has shape {}, more numbers than any memory holds", shape_of(u));
  const int64_t heads = u.dim() == 5 ? u.size(2) : 1;
  const ScanSizes s{u.size(0), u.size(1),  u.size(-2), heads * u.size(-1),
                    heads,     cell.state, cell.params};
  require(s.inputs == cell.inputs,
          "scan: u has shape {}, {} inputs a channel, but the cell {} takes U = {}", shape_of(u),
          s.inputs, cell.name, cell.inputs);
  check_shape("w", w, {s.params, s.channels}, u, cell);
  if (h0) check_shape("h0", *h0, {s.batch, s.state, s.channels}, u, cell);
  return s;
}

ForwardTensors forward_tensors(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                               const std::string& cell, int64_t checkpoint_interval) {
  const ScanSizes s = check_scan_arguments(u, w, h0, cell);
  const int64_t of_device = checkpoint_interval_on(u.device());
  require(checkpoint_interval == 0 || checkpoint_interval == of_device ||
              (u.is_meta() && checkpoint_interval == cuda::kCheckpointInterval),
          "scan: checkpoint_interval is {}, but should be {} on {}, or 0 for no checkpoints",
          checkpoint_interval, of_device, u.device().str());
  const auto arithmetic = u.options().dtype(arithmetic_type(u.scalar_type()));
  ForwardTensors tensors{
      s,
      with_neighbouring_channels(u),
      w.to(arithmetic).contiguous(),
      h0 ? std::make_optional(h0->to(arithmetic).contiguous()) : std::nullopt,
      torch::empty({s.batch, s.steps, s.channels}, u.options()),
      torch::empty({s.batch, s.state, s.channels}, arithmetic),
      torch::empty({s.batch, checkpoint_count(s.steps, checkpoint_interval), s.state, s.channels},
                   arithmetic)};
  if (tensors.y.numel() == 0) {
    h0 ? tensors.hT.copy_(*h0) : tensors.hT.zero_();
    record_forward_statistics({});
  }
  return tensors;
}

BackwardTensors backward_tensors(const Tensor& u_in, const Tensor& w, const Tensor& checkpoints,
                                 const Tensor& dy, const Tensor& dhT, const std::string& cell) {
  const ScanSizes s = check_scan_arguments(u_in, w, std::nullopt, cell);
  const CellDefinition& info = find_cell(cell);
  const auto type = arithmetic_type(u_in.scalar_type());
  check_tensor("checkpoints", checkpoints, u_in);
  check_tensor("dy", dy, u_in);
  check_tensor("dhT", dhT, u_in);
  int64_t count = checkpoint_count(s.steps, checkpoint_interval_on(u_in.device()));
  // Shapes may be asked for any device.
  if (u_in.is_meta() && checkpoints.dim() == 4 && checkpoints.size(1) != count) {
    count = checkpoint_count(s.steps, cuda::kCheckpointInterval);
  }
  check_shape("checkpoints", checkpoints, {s.batch, count, s.state, s.channels}, u_in, info);
  check_shape("dy", dy, {s.batch, s.steps, s.channels}, u_in, info);
  check_shape("dhT", dhT, {s.batch, s.state, s.channels}, u_in, info);
  for (const auto& [name, tensor, expected] :
       {std::tuple{"checkpoints", &checkpoints, type}, {"dy", &dy, u_in.scalar_type()}}) {
    require(tensor->scalar_type() == expected,
            "scan: {} has dtype {}, but for u of dtype {} it should be {}", name,
            c10::toString(tensor->scalar_type()), c10::toString(u_in.scalar_type()),
            c10::toString(expected));
  }
  const Tensor u = with_neighbouring_channels(u_in);
  BackwardTensors tensors{s,
                          u,
                          w.to(type).contiguous(),
                          checkpoints.contiguous(),
                          with_neighbouring_channels(dy),
                          dhT.to(type).contiguous(),
                          with_neighbouring_channels(torch::empty_like(u)),
                          torch::empty(w.sizes(), w.options().dtype(type)),
                          torch::empty(dhT.sizes(), dhT.options().dtype(type))};
  if (tensors.dy.numel() == 0) {
    tensors.dw.zero_();
    tensors.dh0.copy_(dhT);
    record_backward_statistics({});
  }
  return tensors;
}

std::tuple<Tensor, Tensor, Tensor, bool> call_scan_forward(const Tensor& u, const Tensor& w,
                                                           const std::optional<Tensor>& h0,
                                                           const std::string& cell,
                                                           const ScanOptions& o,
                                                           int64_t checkpoint_interval) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("pararnn::_scan_forward", "")
          .typed<std::tuple<Tensor, Tensor, Tensor, bool>(
              const Tensor&, const Tensor&, const std::optional<Tensor>&, const std::string&,
              const std::string&, int64_t, int64_t, double, int64_t)>();
  return op.call(u, w, h0, cell, o.plan, o.chunk, o.burn_in, o.tolerance, checkpoint_interval);
}

std::tuple<Tensor, Tensor, Tensor> call_scan_backward(const Tensor& u, const Tensor& w,
                                                      const Tensor& checkpoints, const Tensor& dy,
                                                      const Tensor& dhT, const std::string& cell,
                                                      const ScanOptions& o) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("pararnn::_scan_backward", "")
          .typed<std::tuple<Tensor, Tensor, Tensor>(
              const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
              const std::string&, const std::string&, int64_t, int64_t, double)>();
  return op.call(u, w, checkpoints, dy, dhT, cell, o.plan, o.chunk, o.burn_in, o.tolerance);
}

void record_forward_statistics(ReadStatistics read) {
  const std::lock_guard lock(statistics_mutex);
  statistics.first = std::move(read);
}

void record_backward_statistics(ReadStatistics read) {
  const std::lock_guard lock(statistics_mutex);
  statistics.second = std::move(read);
}

std::pair<ScanStatistics, ScanStatistics> last_scan_statistics() {
  const std::lock_guard lock(statistics_mutex);
  const auto read = [](const ReadStatistics& f) { return f ? f() : ScanStatistics{}; };
  return {read(statistics.first), read(statistics.second)};
}

std::tuple<Tensor, Tensor> scan(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                                const std::string& cell, const ScanOptions& options) {
  return scan_operator(u, w, h0, cell, options.plan, options.chunk, options.burn_in,
                       options.tolerance);
}

std::tuple<Tensor, Tensor> step(const Tensor& u, const Tensor& w, const Tensor& h,
                                const std::string& cell) {
  return step_operator(u, w, h, cell);
}

TORCH_LIBRARY(pararnn, m) {
  m.def(
      "scan(Tensor u, Tensor w, Tensor? h0, str cell, str plan='auto', int chunk=0, "
      "int burn_in=-1, float tolerance=0.) -> (Tensor y, Tensor hT)",
      &scan_operator);
  m.def("step(Tensor u, Tensor w, Tensor h, str cell) -> (Tensor y, Tensor h)", &step_operator);
  m.def(
      "_scan_forward(Tensor u, Tensor w, Tensor? h0, str cell, str plan, int chunk, int burn_in, "
      "float tolerance, int checkpoint_interval) -> (Tensor y, Tensor hT, Tensor checkpoints, "
      "bool remembers)");
  m.def(
      "_scan_backward(Tensor u, Tensor w, Tensor checkpoints, Tensor dy, Tensor dhT, str cell, "
      "str plan, int chunk, int burn_in, float tolerance) -> (Tensor du, Tensor dw, Tensor dh0)");
}

// Called directly they have no derivative of either mode, and say so.
TORCH_LIBRARY_IMPL(pararnn, Autograd, m) {
  m.impl("_scan_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("_scan_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(pararnn, Meta, m) {
  m.impl("_scan_forward", &scan_forward_meta);
  m.impl("_scan_backward", &scan_backward_meta);
}

}  // namespace pararnn
