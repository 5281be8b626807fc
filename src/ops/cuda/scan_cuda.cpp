// scan on CUDA tensors: plans the pass, allocates the boundary arrays, and launches the engine's
// kernels on the current stream. Nothing here waits for the device, so it can be captured in a
// graph once its kernels are loaded.
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "ops/cuda/channel_pairs.hpp"
#include "ops/cuda/plan_trial.hpp"
#include "ops/cuda/scan_launch.hpp"
#include "ops/scan_kernels.hpp"
#include "pararnn/cuda/scan_backward.hpp"
#include "pararnn/cuda/scan_forward.hpp"

namespace pararnn {
namespace {

using cuda::ScanLauncher;
using torch::Tensor;

cuda::TensorView view_of(const Tensor& t) {
  cuda::TensorView view{t.data_ptr(), t.stride(0), t.stride(1), 0, t.size(-1), t.size(-1)};
  if (t.dim() >= 4) view.component_stride = t.stride(-2);
  if (t.dim() == 5) view.head_stride = t.stride(2);
  return view;
}

/// How the time of a step grows with the blocks on a multiprocessor, measured on an H100: below
/// about three it is that of its dependent operations.
struct StepTime {
  double base, slope;
};
constexpr StepTime kForwardStep{0, 0.35}, kBackwardStep{0.67, 0.165};

PlanRequest request_for(const ScanSizes& sizes, int width, int multiprocessors, StepTime step,
                        const std::string& way, int64_t chunk, int64_t burn_in) {
  return {.batch = sizes.batch,
          .steps = sizes.steps,
          .channels = sizes.channels,
          .lanes = cuda::kThreadsPerBlock * width,
          .threads = multiprocessors,
          .way = way,
          .chunk = chunk,
          .burn_in = burn_in,
          .step_base = step.base,
          .step_slope = step.slope};
}

PlanRequest forward_request(const ScanSizes& sizes, int pair, int multiprocessors,
                            const std::string& way, int64_t chunk, int64_t burn_in) {
  return request_for(sizes, pair, multiprocessors, kForwardStep, way, chunk, burn_in);
}

PlanRequest backward_request(const ScanSizes& sizes, int multiprocessors, const std::string& way,
                             int64_t chunk, int64_t burn_in) {
  return request_for(sizes, 1, multiprocessors, kBackwardStep, way, chunk, burn_in);
}

cuda::Chunking chunking_of(const ScanSizes& sizes, const Plan& plan) {
  return {sizes.batch, sizes.steps, sizes.channels, plan.chunk, plan.chunks, plan.burn_in};
}

/// The arrays of a pass, in one piece of device memory that the problem is given.
template <class Problem>
Tensor workspace_for(Problem& problem, const ScanSizes& sizes, const Tensor& w) {
  const cuda::CellSizes cell{sizes.state, sizes.params, w.element_size()};
  const Tensor memory = torch::empty({cuda::place_workspace(problem, cell, nullptr)},
                                     torch::dtype(torch::kUInt8).device(w.device()));
  cuda::place_workspace(problem, cell, memory.data_ptr());
  return memory;
}

/// Reads the statistics of a pass when they are asked for; keeps its workspace until then.
template <class Problem>
ReadStatistics statistics_of(const Problem& problem, const Plan& plan, const Tensor& workspace,
                             const ScanLauncher& launcher, c10::cuda::CUDAStream stream) {
  return [problem, plan, workspace, launcher, stream] {
    const c10::cuda::CUDAGuard on_its_device(stream.device());
    return public_statistics(cuda::read_statistics(launcher, problem, plan));
  };
}

std::tuple<Tensor, Tensor, Tensor, bool> scan_forward_cuda(const Tensor& u_in, const Tensor& w_in,
                                                           const std::optional<Tensor>& h0_in,
                                                           const std::string& cell,
                                                           const std::string& way, int64_t chunk,
                                                           int64_t burn_in, double tolerance,
                                                           int64_t checkpoint_interval) {
  const c10::cuda::CUDAGuard guard(u_in.device());
  auto [sizes, u, w, h0, y, hT, checkpoints] =
      forward_tensors(u_in, w_in, h0_in, cell, checkpoint_interval);
  if (y.numel() == 0) return {y, hT, checkpoints, false};

  const auto stream = c10::cuda::getCurrentCUDAStream();
  const ScanLauncher launcher(cell, u.scalar_type(), stream);
  // What is made here lies in pairs where u does; w and h0 may begin anywhere.
  const int pair = cuda::pair_of(view_of(u), static_cast<int>(u.element_size()));
  w = aligned_for(pair, w);
  if (h0) h0 = aligned_for(pair, *h0);
  PlanTrial trial({u.get_device(), false, cell, u.scalar_type(), sizes.batch, sizes.steps,
                   sizes.channels, w_in.const_data_ptr()},
                  forward_request(sizes, pair, launcher.multiprocessors(), way, chunk, burn_in),
                  stream);
  const Plan plan = trial.plan();
  cuda::ForwardProblem problem{
      .size = chunking_of(sizes, plan),
      .u = view_of(u),
      .y = view_of(y),
      .w = w.const_data_ptr(),
      .h0 = h0 ? h0->const_data_ptr() : nullptr,
      .hT = hT.data_ptr(),
      .checkpoints = checkpoint_interval > 0 ? checkpoints.data_ptr() : nullptr,
      .tolerance = tolerance_for(tolerance, w.scalar_type())};
  const Tensor workspace = workspace_for(problem, sizes, w);
  std::vector<cuda::Kernel> later;
  if (checkpoint_interval > 0) {
    later = cuda::backward_kernels(
        make_plan(backward_request(sizes, launcher.multiprocessors(), way, chunk, burn_in)).way,
        false);
  }
  cuda::scan_forward(launcher, problem, plan.way, pair, later);
  trial.finish(plan.chunks > 1 ? problem.counters : nullptr);
  record_forward_statistics(statistics_of(problem, plan, workspace, launcher, stream));
  return {y, hT, checkpoints, false};
}

std::tuple<Tensor, Tensor, Tensor> scan_backward_cuda(const Tensor& u_in, const Tensor& w_in,
                                                      const Tensor& checkpoints_in,
                                                      const Tensor& dy_in, const Tensor& dhT_in,
                                                      const std::string& cell,
                                                      const std::string& way, int64_t chunk,
                                                      int64_t burn_in, double tolerance) {
  const c10::cuda::CUDAGuard guard(u_in.device());
  const auto [sizes, u, w, checkpoints, dy, dhT, du, dw, dh0] =
      backward_tensors(u_in, w_in, checkpoints_in, dy_in, dhT_in, cell);
  if (dy.numel() == 0) return {du, dw, dh0};

  const auto stream = c10::cuda::getCurrentCUDAStream();
  const ScanLauncher launcher(cell, u.scalar_type(), stream);
  PlanTrial trial({u.get_device(), true, cell, u.scalar_type(), sizes.batch, sizes.steps,
                   sizes.channels, w_in.const_data_ptr()},
                  backward_request(sizes, launcher.multiprocessors(), way, chunk, burn_in), stream);
  const Plan plan = trial.plan();
  cuda::BackwardProblem problem{.size = chunking_of(sizes, plan),
                                .u = view_of(u),
                                .dy = view_of(dy),
                                .du = view_of(du),
                                .w = w.const_data_ptr(),
                                .checkpoints = checkpoints.const_data_ptr(),
                                .dhT = dhT.const_data_ptr(),
                                .dh0 = dh0.data_ptr(),
                                .dw = dw.data_ptr(),
                                .tolerance = tolerance_for(tolerance, w.scalar_type())};
  const Tensor workspace = workspace_for(problem, sizes, w);
  cuda::scan_backward(launcher, problem, plan.way);
  trial.finish(plan.chunks > 1 ? problem.counters : nullptr);
  record_backward_statistics(statistics_of(problem, plan, workspace, launcher, stream));
  return {du, dw, dh0};
}

}  // namespace

TORCH_LIBRARY_IMPL(pararnn, CUDA, m) {
  m.impl("_scan_forward", &scan_forward_cuda);
  m.impl("_scan_backward", &scan_backward_cuda);
}

}  // namespace pararnn
