// Schemas, argument checks, autograd and shape inference of the operators. The work is done by
// _scan_forward and _scan_backward, which each device implements.
//
// Saved for the backward pass: u, w, and the checkpoints of the state, S numbers of the
// arithmetic's type per channel every 16 steps on a CPU (S/4 bytes a step and channel in fp32) and
// every 8 on a GPU (S/2). Neither y nor any other state is kept.
#include "ops/scan.hpp"

#include <torch/autograd.h>
#include <torch/library.h>

#include <mutex>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "ops/scan_kernels.hpp"
#include "pararnn/cuda/problem.hpp"
#include "pararnn/plan.hpp"

namespace pararnn {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::string shape_of(const Tensor& t) {
  std::string text = "(";
  for (int64_t i = 0; i < t.dim(); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ",", t.size(i));
  }
  return text + ")";
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
    return {du, dw, data["has_h0"].toBool() ? dh0 : Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor> scan_operator(const Tensor& u, const Tensor& w,
                                         const std::optional<Tensor>& h0, const std::string& cell,
                                         const std::string& plan, int64_t chunk, int64_t burn_in,
                                         double tolerance) {
  check_scan_arguments(u, w, h0, cell);
  const auto type = arithmetic_type(u.scalar_type());
  const Tensor weights = w.to(type).contiguous();
  std::optional<Tensor> state;
  if (h0) state = h0->to(type).contiguous();
  const ScanOptions options{plan, chunk, burn_in, tolerance};
  const bool differentiable =
      torch::GradMode::is_enabled() &&
      (u.requires_grad() || weights.requires_grad() || (state && state->requires_grad()));
  if (!differentiable) {
    const auto [y, hT, checkpoints, remembers] =
        call_scan_forward(u, weights, state, cell, options, 0);
    return {y, hT};
  }
  const variable_list results = ScanFunction::apply(u, weights, state, cell, options);
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
                                                           const std::string&, int64_t, int64_t,
                                                           double, int64_t checkpoint_interval) {
  const ScanSizes s = check_scan_arguments(u, w, h0, cell);
  return {
      torch::empty({s.batch, s.steps, s.channels}, u.options()),
      torch::empty({s.batch, s.state, s.channels}, w.options()),
      torch::empty({s.batch, checkpoint_count(s.steps, checkpoint_interval), s.state, s.channels},
                   w.options()),
      false};
}

std::tuple<Tensor, Tensor, Tensor> scan_backward_meta(const Tensor& u, const Tensor& w,
                                                      const Tensor&, const Tensor&,
                                                      const Tensor& dhT, const std::string&,
                                                      const std::string&, int64_t, int64_t,
                                                      double) {
  return {torch::empty_like(u), torch::empty_like(w), torch::empty_like(dhT)};
}

}  // namespace

torch::ScalarType arithmetic_type(torch::ScalarType type) {
  return type == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}

double tolerance_for(double wanted, torch::ScalarType arithmetic) {
  if (wanted > 0) return wanted;
  return arithmetic == torch::kFloat64 ? kDefaultTolerance<double> : kDefaultTolerance<float>;
}

int64_t checkpoint_interval_on(const torch::Device& device) {
  return device.is_cuda() ? cuda::kCheckpointInterval : kCheckpointInterval;
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
  const auto is_supported = [](torch::ScalarType t) {
    return t == torch::kFloat16 || t == torch::kBFloat16 || t == torch::kFloat32 ||
           t == torch::kFloat64;
  };
  for (const auto& [name, tensor] : {std::pair{"u", u}, {"w", w}, {"h0", h0.value_or(w)}}) {
    require(is_supported(tensor.scalar_type()),
            "scan: {} has dtype {}, but should be float16, bfloat16, float32 or float64", name,
            c10::toString(tensor.scalar_type()));
    require(tensor.device() == u.device(), "scan: {} is on {}, but u is on {}; move one of them",
            name, tensor.device().str(), u.device().str());
  }
  require(u.dim() == 4 || u.dim() == 5,
          "scan: u has shape {}, but should be (B,T,U,D), or (B,T,H,U,D/H) for H heads",
          shape_of(u));
  const int64_t heads = u.dim() == 5 ? u.size(2) : 1;
  const ScanSizes s{u.size(0), u.size(1),  u.size(-2), heads * u.size(-1),
                    heads,     cell.state, cell.params};
  require(s.inputs == cell.inputs,
          "scan: u has shape {}, {} inputs a channel, but the cell {} takes U = {}", shape_of(u),
          s.inputs, cell.name, cell.inputs);
  require(w.dim() == 2 && w.size(0) == s.params && w.size(1) == s.channels,
          "scan: w has shape {}, but for the cell {} and {} channels it should be ({},{})",
          shape_of(w), cell.name, s.channels, s.params, s.channels);
  if (h0) {
    require(h0->dim() == 3 && h0->size(0) == s.batch && h0->size(1) == s.state &&
                h0->size(2) == s.channels,
            "scan: h0 has shape {}, but for the cell {} it should be ({},{},{})", shape_of(*h0),
            cell.name, s.batch, s.state, s.channels);
  }
  return s;
}

ForwardTensors forward_tensors(const Tensor& u, const Tensor& w, const std::optional<Tensor>& h0,
                               const std::string& cell, int64_t checkpoint_interval) {
  const ScanSizes s = check_scan_arguments(u, w, h0, cell);
  ForwardTensors tensors{
      s, with_neighbouring_channels(u), torch::empty({s.batch, s.steps, s.channels}, u.options()),
      torch::empty({s.batch, s.state, s.channels}, w.options()),
      torch::empty({s.batch, checkpoint_count(s.steps, checkpoint_interval), s.state, s.channels},
                   w.options())};
  if (tensors.y.numel() == 0) {
    h0 ? tensors.hT.copy_(*h0) : tensors.hT.zero_();
    record_forward_statistics({});
  }
  return tensors;
}

BackwardTensors backward_tensors(const Tensor& u_in, const Tensor& w, const Tensor& dy,
                                 const Tensor& dhT, const std::string& cell) {
  const ScanSizes sizes = check_scan_arguments(u_in, w, std::nullopt, cell);
  const Tensor u = with_neighbouring_channels(u_in);
  BackwardTensors tensors{sizes,
                          u,
                          with_neighbouring_channels(dy),
                          dhT.contiguous(),
                          with_neighbouring_channels(torch::empty_like(u)),
                          torch::empty_like(w),
                          torch::empty_like(dhT, torch::MemoryFormat::Contiguous)};
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

TORCH_LIBRARY_IMPL(pararnn, Meta, m) {
  m.impl("_scan_forward", &scan_forward_meta);
  m.impl("_scan_backward", &scan_backward_meta);
}

}  // namespace pararnn
