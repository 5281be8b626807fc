// scan on CPU tensors: views of the callers' tensors handed to the engine.
#include <atomic>

#include "cells/cpu_kernels.hpp"
#include "kernels/scan.hpp"
#include "kernels/scan_statistics.hpp"
#include "pararnn/cpu/scan_backward.hpp"
#include "pararnn/cpu/scan_forward.hpp"

namespace pararnn::kernels {
namespace {

int thread_count() { return static_cast<int>(torch::stable::get_num_threads()); }

/// Tasks over LibTorch's own threads, handed out one by one.
cpu::Executor torch_executor() {
  const int threads = thread_count();
  return {threads, [threads](int64_t count, const std::function<void(int64_t)>& task) {
            std::atomic<int64_t> next{0};
            const int64_t workers = std::min<int64_t>(threads, count);
            torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
              for (int64_t worker = begin; worker < end; ++worker) {
                for (int64_t i = next++; i < count; i = next++) task(i);
              }
            });
          }};
}

cpu::Storage storage_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return cpu::Storage::kFloat16;
    case ScalarType::BFloat16:
      return cpu::Storage::kBFloat16;
    case ScalarType::Float:
      return cpu::Storage::kFloat32;
    default:
      return cpu::Storage::kFloat64;
  }
}

/// (B,T,N,D) or (B,T,H,N,D/H), or (B,T,D) for N = 1; without T where `axes` is 1.
cpu::TensorView view_of(const Tensor& t, int axes = 2) {
  const Strides s = strides_of(t, axes);
  const bool streamed = t.numel() * int64_t(t.element_size()) >= cpu::kStreamedBytes;
  return {t.data_ptr(), storage_of(t), s.batch,      s.step,
          s.component,  s.head,        s.head_width, streamed};
}

template <class T>
Plan plan_for(const ScanSizes& sizes, const cpu::Kernels<T>& kernels, const ScanOptions& options) {
  return make_plan({sizes.batch, sizes.steps, sizes.channels, kernels.lanes, thread_count(),
                    options.plan, options.chunk, options.burn_in});
}

/// f(0.0f) or f(0.0): work in the arithmetic.
template <class F>
void in_arithmetic(ScalarType arithmetic, F&& f) {
  arithmetic == ScalarType::Double ? f(double{}) : f(float{});
}

}  // namespace

ForwardResults scan_forward_cpu(const Tensor& u_in, const Tensor& w_in,
                                const std::optional<Tensor>& h0_in, const CellDefinition& cell,
                                const ScanOptions& options, const ForwardRequest& request) {
  check_plan_options(options.plan, options.chunk, options.burn_in);
  auto [sizes, arithmetic, u, w, h0, y, hT, checkpoints, sequences] =
      forward_tensors(u_in, w_in, h0_in, cell, request);
  const double tolerance = tolerance_for(options.tolerance, arithmetic);
  bool remembers = false;
  if (y.numel() == 0) return {std::move(y), std::move(hT), std::move(checkpoints), remembers};
  in_arithmetic(arithmetic, [&]<class T>(T) {
    const auto& kernels = cpu_kernels<T>(cell);
    cpu::ForwardProblem<T> problem{};
    problem.size = {sizes.batch, sizes.steps, sizes.channels, 0, 0, 0};
    problem.u = view_of(u, request.axes);
    problem.y = view_of(y, request.axes);
    problem.sequences = sequences_of(sequences);
    problem.w = w.const_data_ptr<T>();
    problem.h0 = h0 ? h0->const_data_ptr<T>() : nullptr;
    problem.hT = hT.mutable_data_ptr<T>();
    problem.checkpoints =
        request.checkpoint_interval.value_or(0) > 0 ? checkpoints->mutable_data_ptr<T>() : nullptr;
    problem.tolerance = tolerance;
    const Plan plan = plan_for(sizes, kernels, options);
    const Statistics statistics = cpu::scan_forward(kernels, torch_executor(), problem, plan);
    remembers = 2 * statistics.columns_corrected > statistics.columns;
    record_forward_statistics(statistics);
  });
  return {std::move(y), std::move(hT), std::move(checkpoints), remembers};
}

BackwardResults scan_backward_cpu(const Tensor& u_in, const Tensor& w_in,
                                  const Tensor& checkpoints_in, const Tensor& dy_in,
                                  const Tensor& dhT_in, const CellDefinition& cell,
                                  const ScanOptions& options, const BackwardRequest& request) {
  check_plan_options(options.plan, options.chunk, options.burn_in);
  auto [sizes, arithmetic, u, w, checkpoints, dy, dhT, du, dw, dh0, h0, sequences] =
      backward_tensors(u_in, w_in, checkpoints_in, dy_in, dhT_in, cell, request);
  const double tolerance = tolerance_for(options.tolerance, arithmetic);
  if (dy.numel() == 0) return {std::move(du), std::move(dw), std::move(dh0)};
  in_arithmetic(arithmetic, [&]<class T>(T) {
    const auto& kernels = cpu_kernels<T>(cell);
    cpu::BackwardProblem<T> problem{};
    problem.size = {sizes.batch, sizes.steps, sizes.channels, 0, 0, 0};
    problem.u = view_of(u);
    problem.dy = view_of(dy);
    problem.du = view_of(du);
    problem.sequences = sequences_of(sequences);
    problem.h0 = h0 ? h0->const_data_ptr<T>() : nullptr;
    problem.w = w.const_data_ptr<T>();
    problem.checkpoints = checkpoints.const_data_ptr<T>();
    problem.dhT = dhT.const_data_ptr<T>();
    problem.dh0 = dh0.mutable_data_ptr<T>();
    problem.dw = dw.mutable_data_ptr<T>();
    problem.tolerance = tolerance;
    const Plan plan = plan_for(sizes, kernels, options);
    record_backward_statistics(cpu::scan_backward(kernels, torch_executor(), problem, plan));
  });
  return {std::move(du), std::move(dw), std::move(dh0)};
}

}  // namespace pararnn::kernels
