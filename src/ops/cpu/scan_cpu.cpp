// scan on CPU tensors: views of the callers' tensors handed to the engine.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <atomic>

#include "cells/cell_registry.hpp"
#include "cells/cpu_kernels.hpp"
#include "ops/scan_kernels.hpp"
#include "pararnn/cpu/scan_backward.hpp"
#include "pararnn/cpu/scan_forward.hpp"

namespace pararnn {
namespace {

using torch::Tensor;

/// Tasks over LibTorch's own threads, handed out one by one.
cpu::Executor torch_executor() {
  const int threads = at::get_num_threads();
  return {threads, [threads](int64_t count, const std::function<void(int64_t)>& task) {
            std::atomic<int64_t> next{0};
            const int64_t workers = std::min<int64_t>(threads, count);
            at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
              for (int64_t worker = begin; worker < end; ++worker) {
                for (int64_t i = next++; i < count; i = next++) task(i);
              }
            });
          }};
}

cpu::Storage storage_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case torch::kFloat16:
      return cpu::Storage::kFloat16;
    case torch::kBFloat16:
      return cpu::Storage::kBFloat16;
    case torch::kFloat32:
      return cpu::Storage::kFloat32;
    default:
      return cpu::Storage::kFloat64;
  }
}

/// (B,T,N,D) or (B,T,H,N,D/H), or (B,T,D) for N = 1.
cpu::TensorView view_of(const Tensor& t) {
  cpu::TensorView view{t.data_ptr(), storage_of(t), t.stride(0), t.stride(1), 0, 0, t.size(-1)};
  if (t.dim() >= 4) view.component_stride = t.stride(-2);
  if (t.dim() == 5) view.head_stride = t.stride(2);
  view.streamed = int64_t(t.nbytes()) >= cpu::kStreamedBytes;
  return view;
}

ReadStatistics read_later(const Statistics& statistics) {
  return [result = public_statistics(statistics)] { return result; };
}

template <class T>
Plan plan_for(const ScanSizes& sizes, const cpu::Kernels<T>& kernels, const std::string& way,
              int64_t chunk, int64_t burn_in) {
  return make_plan({sizes.batch, sizes.steps, sizes.channels, kernels.lanes, at::get_num_threads(),
                    way, chunk, burn_in});
}

std::tuple<Tensor, Tensor, Tensor, bool> scan_forward_cpu(const Tensor& u_in, const Tensor& w_in,
                                                          const std::optional<Tensor>& h0_in,
                                                          const std::string& cell,
                                                          const std::string& way, int64_t chunk,
                                                          int64_t burn_in, double tolerance,
                                                          int64_t checkpoint_interval) {
  const auto [sizes, u, w, h0, y, hT, checkpoints] =
      forward_tensors(u_in, w_in, h0_in, cell, checkpoint_interval);
  if (y.numel() == 0) return {y, hT, checkpoints, false};
  bool remembers = false;
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "scan", [&] {
    const auto& kernels = cpu_kernels<scalar_t>(find_cell(cell));
    cpu::ForwardProblem<scalar_t> problem{};
    problem.size = {sizes.batch, sizes.steps, sizes.channels, 0, 0, 0};
    problem.u = view_of(u);
    problem.y = view_of(y);
    problem.w = w.const_data_ptr<scalar_t>();
    problem.h0 = h0 ? h0->const_data_ptr<scalar_t>() : nullptr;
    problem.hT = hT.data_ptr<scalar_t>();
    problem.checkpoints = checkpoint_interval > 0 ? checkpoints.data_ptr<scalar_t>() : nullptr;
    problem.tolerance = tolerance_for(tolerance, w.scalar_type());
    const Plan plan = plan_for(sizes, kernels, way, chunk, burn_in);
    const Statistics statistics = cpu::scan_forward(kernels, torch_executor(), problem, plan);
    remembers = 2 * statistics.columns_corrected > statistics.columns;
    record_forward_statistics(read_later(statistics));
  });
  return {y, hT, checkpoints, remembers};
}

std::tuple<Tensor, Tensor, Tensor> scan_backward_cpu(const Tensor& u_in, const Tensor& w_in,
                                                     const Tensor& checkpoints_in,
                                                     const Tensor& dy_in, const Tensor& dhT_in,
                                                     const std::string& cell,
                                                     const std::string& way, int64_t chunk,
                                                     int64_t burn_in, double tolerance) {
  const auto [sizes, u, w, checkpoints, dy, dhT, du, dw, dh0] =
      backward_tensors(u_in, w_in, checkpoints_in, dy_in, dhT_in, cell);
  if (dy.numel() == 0) return {du, dw, dh0};
  AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "scan", [&] {
    const auto& kernels = cpu_kernels<scalar_t>(find_cell(cell));
    cpu::BackwardProblem<scalar_t> problem{};
    problem.size = {sizes.batch, sizes.steps, sizes.channels, 0, 0, 0};
    problem.u = view_of(u);
    problem.dy = view_of(dy);
    problem.du = view_of(du);
    problem.w = w.const_data_ptr<scalar_t>();
    problem.checkpoints = checkpoints.const_data_ptr<scalar_t>();
    problem.dhT = dhT.const_data_ptr<scalar_t>();
    problem.dh0 = dh0.data_ptr<scalar_t>();
    problem.dw = dw.data_ptr<scalar_t>();
    problem.tolerance = tolerance_for(tolerance, w.scalar_type());
    const Plan plan = plan_for(sizes, kernels, way, chunk, burn_in);
    record_backward_statistics(
        read_later(cpu::scan_backward(kernels, torch_executor(), problem, plan)));
  });
  return {du, dw, dh0};
}

}  // namespace

TORCH_LIBRARY_IMPL(pararnn, CPU, m) {
  m.impl("_scan_forward", &scan_forward_cpu);
  m.impl("_scan_backward", &scan_backward_cpu);
}

}  // namespace pararnn
