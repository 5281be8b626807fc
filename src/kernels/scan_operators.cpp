// The operators, as LibTorch knows them.
//
//   scan, step       for anyone who has this library alone. They have no derivatives, and say so
//                    where one would be lost; those above this library have them
//   _scan            y, hT
//   _plain_scan      the same with the default options, of rows that are a sequence each: from
//                    Python, every argument costs as much as the checks of all of them
//   _scan_forward    y, hT, checkpoints of the state, and whether most columns remembered for
//                    longer than the burn-in, where that is known at once: not on a GPU
//   _scan_backward   du in u's dtype, dw and dh0 in the arithmetic's, from the checkpoints
//   _step            y, h of one step
//
// Those that begin with _ do not look for derivatives, which costs more than they do: their callers
// have. Python can call them, so they check all else that they are given. They return tensors
// alone, so that nothing is a constant to those who compile graphs of them, and their shapes are
// described by whoever compiles, where a number of steps may be unknown.
#include "cells/cell_registry.hpp"
#include "kernels/scan.hpp"
#include "pararnn/cpu/problem.hpp"
#include "pararnn/cuda/problem.hpp"

namespace pararnn::kernels {
namespace {

using Optional = std::optional<Tensor>;

// Behind the options of each: cu_seqlens (N+1) or reset (B,T), where states start anew within rows.

ScanOptions options_of(const Text& plan, int64_t chunk, int64_t burn_in, double tolerance) {
  return {std::string(plan), chunk, burn_in, tolerance};
}

std::tuple<Tensor, Tensor> scan_operator(const Tensor& u, const Tensor& w, const Optional& h0,
                                         StringHandle cell_text, StringHandle plan_text,
                                         int64_t chunk, int64_t burn_in, double tolerance,
                                         const Optional& cu_seqlens, const Optional& reset) {
  const Text cell(cell_text), plan(plan_text);
  auto [y, hT, checkpoints, remembers] =
      scan_forward(u, w, h0, find_cell(cell), options_of(plan, chunk, burn_in, tolerance),
                   {.sequences = {cu_seqlens, reset}});
  return {std::move(y), std::move(hT)};
}

std::tuple<Tensor, Tensor> plain_scan_operator(const Tensor& u, const Tensor& w, const Optional& h0,
                                               StringHandle cell_text) {
  const Text cell(cell_text);
  auto [y, hT, checkpoints, remembers] = scan_forward(u, w, h0, find_cell(cell), {}, {});
  return {std::move(y), std::move(hT)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> scan_forward_operator(
    const Tensor& u, const Tensor& w, const Optional& h0, StringHandle cell_text,
    StringHandle plan_text, int64_t chunk, int64_t burn_in, double tolerance, int64_t interval,
    const Optional& cu_seqlens, const Optional& reset) {
  const Text cell(cell_text), plan(plan_text);
  auto [y, hT, checkpoints, remembers] =
      scan_forward(u, w, h0, find_cell(cell), options_of(plan, chunk, burn_in, tolerance),
                   {.checkpoint_interval = interval, .sequences = {cu_seqlens, reset}});
  // One where it is known, and none where it is not.
  const Tensor flag = make_tensor("remembers", {u.is_cpu() ? 1 : 0}, ScalarType::Bool, u);
  if (u.is_cpu()) *flag.mutable_data_ptr<bool>() = remembers;
  return {std::move(y), std::move(hT), *std::move(checkpoints), flag};
}

std::tuple<Tensor, Tensor, Tensor> scan_backward_operator(
    const Tensor& u, const Tensor& w, const Tensor& checkpoints, const Optional& remembers,
    const Tensor& dy, const Tensor& dhT, StringHandle cell_text, StringHandle plan_text,
    int64_t chunk, int64_t burn_in, double tolerance, const Optional& h0,
    const Optional& cu_seqlens, const Optional& reset) {
  const Text cell(cell_text), plan(plan_text);
  const bool known = remembers && remembers->is_cpu() && remembers->numel() == 1 &&
                     remembers->scalar_type() == ScalarType::Bool;
  const ScanOptions options = adjoint_options(options_of(plan, chunk, burn_in, tolerance),
                                              known && *remembers->const_data_ptr<bool>());
  auto [du, dw, dh0] = scan_backward(u, w, checkpoints, dy, dhT, find_cell(cell), options,
                                     {h0, {cu_seqlens, reset}});
  return {std::move(du), std::move(dw), std::move(dh0)};
}

std::tuple<Tensor, Tensor> step_operator(const Tensor& u, const Tensor& w, const Tensor& h,
                                         StringHandle cell_text) {
  const Text cell(cell_text);
  auto [y, next, checkpoints, remembers] =
      scan_forward(u, w, h.borrowed(), find_cell(cell), {.plan = "sequential"}, {.axes = 1});
  return {std::move(y), std::move(next)};
}

/// Automatic differentiation below here would give no gradient, and tangents of zero, without a
/// word.
void refuse_derivatives(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors) {
    if (!t || !t->is_dense() || (!wants_gradient(*t) && !has_tangent(*t))) continue;
    throw Error(
        fmt::format("torch.ops.pararnn.{} has no derivatives by itself: call {} of the "
                    "Python package pararnn_cpp, or of libpararnn.so",
                    op, op));
  }
}

std::tuple<Tensor, Tensor> guarded_scan(const Tensor& u, const Tensor& w, const Optional& h0,
                                        StringHandle cell_text, StringHandle plan_text,
                                        int64_t chunk, int64_t burn_in, double tolerance,
                                        const Optional& cu_seqlens, const Optional& reset) {
  const Text cell(cell_text), plan(plan_text);
  refuse_derivatives("scan", {&u, &w, h0 ? &*h0 : nullptr});
  auto [y, hT] = call<2>("pararnn::_scan", u, w, h0, std::string(cell), std::string(plan), chunk,
                         burn_in, tolerance, cu_seqlens, reset);
  return {std::move(y), std::move(hT)};
}

std::tuple<Tensor, Tensor> guarded_step(const Tensor& u, const Tensor& w, const Tensor& h,
                                        StringHandle cell_text) {
  const Text cell(cell_text);
  refuse_derivatives("step", {&u, &w, &h});
  auto [y, next] = call<2>("pararnn::_step", u, w, h, std::string(cell));
  return {std::move(y), std::move(next)};
}

int64_t checkpoint_interval_operator(torch::stable::Device device) {
  return device.is_cuda() ? cuda::kCheckpointInterval : cpu::kCheckpointInterval;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def(
      "scan(Tensor u, Tensor w, Tensor? h0, str cell, str plan='auto', int chunk=0, "
      "int burn_in=-1, float tolerance=0., Tensor? cu_seqlens=None, Tensor? reset=None) -> "
      "(Tensor y, Tensor hT)");
  m.def("step(Tensor u, Tensor w, Tensor h, str cell) -> (Tensor y, Tensor h)");
  m.def(
      "_scan(Tensor u, Tensor w, Tensor? h0, str cell, str plan, int chunk, int burn_in, "
      "float tolerance, Tensor? cu_seqlens=None, Tensor? reset=None) -> (Tensor y, Tensor hT)");
  m.def("_plain_scan(Tensor u, Tensor w, Tensor? h0, str cell) -> (Tensor y, Tensor hT)");
  m.def(
      "_scan_forward(Tensor u, Tensor w, Tensor? h0, str cell, str plan, int chunk, int burn_in, "
      "float tolerance, int checkpoint_interval, Tensor? cu_seqlens=None, Tensor? reset=None) -> "
      "(Tensor y, Tensor hT, Tensor checkpoints, Tensor remembers)");
  m.def(
      "_scan_backward(Tensor u, Tensor w, Tensor checkpoints, Tensor? remembers, Tensor dy, "
      "Tensor dhT, str cell, str plan, int chunk, int burn_in, float tolerance, Tensor? h0=None, "
      "Tensor? cu_seqlens=None, Tensor? reset=None) -> (Tensor du, Tensor dw, Tensor dh0)");
  m.def("_step(Tensor u, Tensor w, Tensor h, str cell) -> (Tensor y, Tensor h)");
  m.def("_checkpoint_interval(Device device) -> int");
}

// What is not on a CPU or a GPU is refused in a sentence.
STABLE_TORCH_LIBRARY_IMPL(pararnn, CompositeExplicitAutograd, m) {
  m.impl("_scan", &boxed<&scan_operator>);
  m.impl("_plain_scan", &boxed<&plain_scan_operator>);
  m.impl("_scan_forward", &boxed<&scan_forward_operator>);
  m.impl("_scan_backward", &boxed<&scan_backward_operator>);
  m.impl("_step", &boxed<&step_operator>);
  m.impl("_checkpoint_interval", &boxed<&checkpoint_interval_operator>);
}

STABLE_TORCH_LIBRARY_IMPL(pararnn, CompositeImplicitAutograd, m) {
  m.impl("scan", &boxed<&guarded_scan>);
  m.impl("step", &boxed<&guarded_step>);
}

}  // namespace pararnn::kernels
