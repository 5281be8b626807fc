// scan on CUDA tensors: plans the pass, allocates the boundary arrays, and launches the engine's
// kernels on the current stream. Nothing here waits for the device, so it can be captured in a
// graph once its kernels are loaded.
#include "jit/cuda_runtime.hpp"
#include "kernels/cuda/channel_pairs.hpp"
#include "kernels/cuda/plan_trial.hpp"
#include "kernels/cuda/scan_launch.hpp"
#include "kernels/scan.hpp"
#include "kernels/scan_statistics.hpp"
#include "pararnn/cuda/scan_backward.hpp"
#include "pararnn/cuda/scan_forward.hpp"

namespace pararnn::kernels {
namespace {

using cuda::ScanLauncher;
using torch::stable::accelerator::DeviceGuard;

/// Makes a device the current one for a while. Mostly it is, and to ask is less than a guard does.
std::optional<DeviceGuard> guard_for(int device) {
  int current = -1;
  jit::check_cuda(jit::cuda().cudaGetDevice(&current), "tell the current device");
  return current == device ? std::nullopt : std::make_optional<DeviceGuard>(device);
}

/// (B,T,N,D) or (B,T,H,N,D/H), or (B,T,D) for N = 1; without T where `axes` is 1. One head is as
/// wide as its stride.
cuda::TensorView view_of(const Tensor& t, int axes = 2) {
  const Strides s = strides_of(t, axes);
  return {t.data_ptr(), s.batch, s.step, s.component, t.dim() == axes + 3 ? s.head : s.head_width,
          s.head_width};
}

/// How the time of a step grows with the blocks on a multiprocessor, measured on an H100: below
/// about three it is that of its dependent operations.
struct StepTime {
  double base, slope;
};
constexpr StepTime kForwardStep{0, 0.35}, kBackwardStep{0.67, 0.165};

PlanRequest request_for(const ScanSizes& sizes, int width, int multiprocessors, StepTime step,
                        const ScanOptions& options) {
  return {.batch = sizes.batch,
          .steps = sizes.steps,
          .channels = sizes.channels,
          .lanes = cuda::kThreadsPerBlock * width,
          .threads = multiprocessors,
          .way = options.plan,
          .chunk = options.chunk,
          .burn_in = options.burn_in,
          .step_base = step.base,
          .step_slope = step.slope};
}

PlanRequest forward_request(const ScanSizes& sizes, int pair, int multiprocessors,
                            const ScanOptions& options) {
  return request_for(sizes, pair, multiprocessors, kForwardStep, options);
}

PlanRequest backward_request(const ScanSizes& sizes, int multiprocessors,
                             const ScanOptions& options) {
  return request_for(sizes, 1, multiprocessors, kBackwardStep, options);
}

cuda::Chunking chunking_of(const ScanSizes& sizes, const Plan& plan) {
  return {sizes.batch, sizes.steps, sizes.channels, plan.chunk, plan.chunks, plan.burn_in};
}

cuda::CellSizes cell_sizes(const ScanSizes& sizes, const Tensor& w) {
  return {sizes.state, sizes.params, cuda::Int(w.element_size())};
}

/// The arrays of a pass, in one piece of device memory that the problem is given. None where there
/// is nothing but counters, which a pass of one chunk does not touch.
template <class Problem>
std::optional<Tensor> workspace_for(Problem& problem, const ScanSizes& sizes, const Tensor& w) {
  const cuda::CellSizes cell = cell_sizes(sizes, w);
  cuda::Workspace counters(nullptr);
  counters.add(sizeof(cuda::Counters));
  const cuda::Int bytes = cuda::place_workspace(problem, cell, nullptr);
  if (bytes == counters.size()) return std::nullopt;
  const Tensor memory = make_tensor("a workspace", {bytes}, ScalarType::Byte, w);
  cuda::place_workspace(problem, cell, memory.data_ptr());
  return memory;
}

/// Reads the statistics of a pass when they are asked for; keeps its workspace until then.
template <class Problem>
LastStatistics statistics_of(const Problem& problem, const Plan& plan, int device,
                             const std::optional<Tensor>& workspace, const ScanLauncher& launcher) {
  if (plan.chunks == 1) {
    return Statistics{.plan = plan, .columns = problem.size.batch * problem.size.channels};
  }
  return [problem, plan, device, workspace, launcher] {
    const DeviceGuard on_its_device(device);
    return cuda::read_statistics(launcher, problem, plan);
  };
}

}  // namespace

ForwardResults scan_forward_cuda(const Tensor& u_in, const Tensor& w_in,
                                 const std::optional<Tensor>& h0_in, const CellDefinition& cell,
                                 const ScanOptions& options, const ForwardRequest& request) {
  check_plan_options(options.plan, options.chunk, options.burn_in);
  const int device = u_in.get_device_index();
  const auto guard = guard_for(device);
  auto [sizes, arithmetic, u, w_read, h0_read, y, hT, checkpoints, sequences] =
      forward_tensors(u_in, w_in, h0_in, cell, request);
  const double tolerance = tolerance_for(options.tolerance, arithmetic);
  if (y.numel() == 0) return {std::move(y), std::move(hT), std::move(checkpoints)};

  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(device));
  const auto type = u.scalar_type();
  const ScanLauncher launcher(cell, type, device, stream);
  // What is made here lies in pairs where u does; w and h0 may begin anywhere.
  const int pair = cuda::pair_of(view_of(u, request.axes), static_cast<int>(u.element_size()));
  const Tensor w = aligned_for(pair, w_read);
  const std::optional<Tensor> h0 =
      h0_read ? std::make_optional(aligned_for(pair, *h0_read)) : std::nullopt;
  PlanTrial trial({device, false, &cell, type, sizes.batch, sizes.steps, sizes.channels,
                   sizes.sequences, w_in.const_data_ptr()},
                  forward_request(sizes, pair, launcher.multiprocessors(), options), stream);
  const Plan plan = trial.plan();
  const bool keeps = request.checkpoint_interval.value_or(0) > 0;
  cuda::ForwardProblem problem{.size = chunking_of(sizes, plan),
                               .u = view_of(u, request.axes),
                               .y = view_of(y, request.axes),
                               .sequences = sequences_of(sequences),
                               .w = w.const_data_ptr(),
                               .h0 = h0 ? h0->const_data_ptr() : nullptr,
                               .hT = hT.data_ptr(),
                               .checkpoints = keeps ? checkpoints->data_ptr() : nullptr,
                               .tolerance = tolerance};
  const auto workspace = workspace_for(problem, sizes, w);
  std::vector<cuda::Kernel> later;
  if (keeps) {
    const int multiprocessors = launcher.multiprocessors();
    const bool starts = !problem.sequences.none();
    later = cuda::backward_kernels(
        remembered_plan(backward_request(sizes, multiprocessors, options)).way, starts,
        cuda::backward_groups(problem.size, cell_sizes(sizes, w), starts, multiprocessors));
  }
  cuda::scan_forward(launcher, problem, plan.way, pair, later);
  trial.finish(plan.chunks > 1 ? problem.counters : nullptr);
  record_forward_statistics(statistics_of(problem, plan, device, workspace, launcher));
  return {std::move(y), std::move(hT), std::move(checkpoints)};
}

BackwardResults scan_backward_cuda(const Tensor& u_in, const Tensor& w_in,
                                   const Tensor& checkpoints_in, const Tensor& dy_in,
                                   const Tensor& dhT_in, const CellDefinition& cell,
                                   const ScanOptions& options, const BackwardRequest& request) {
  check_plan_options(options.plan, options.chunk, options.burn_in);
  const int device = u_in.get_device_index();
  const auto guard = guard_for(device);
  auto [sizes, arithmetic, u, w, checkpoints, dy, dhT, du, dw, dh0, h0, sequences] =
      backward_tensors(u_in, w_in, checkpoints_in, dy_in, dhT_in, cell, request);
  const double tolerance = tolerance_for(options.tolerance, arithmetic);
  if (dy.numel() == 0) return {std::move(du), std::move(dw), std::move(dh0)};

  const auto stream = static_cast<cudaStream_t>(current_cuda_stream(device));
  const auto type = u.scalar_type();
  const ScanLauncher launcher(cell, type, device, stream);
  PlanTrial trial({device, true, &cell, type, sizes.batch, sizes.steps, sizes.channels,
                   sizes.sequences, w_in.const_data_ptr()},
                  backward_request(sizes, launcher.multiprocessors(), options), stream);
  const Plan plan = trial.plan();
  cuda::BackwardProblem problem{.size = chunking_of(sizes, plan),
                                .u = view_of(u),
                                .dy = view_of(dy),
                                .du = view_of(du),
                                .sequences = sequences_of(sequences),
                                .w = w.const_data_ptr(),
                                .h0 = h0 ? h0->const_data_ptr() : nullptr,
                                .checkpoints = checkpoints.const_data_ptr(),
                                .dhT = dhT.const_data_ptr(),
                                .dh0 = dh0.data_ptr(),
                                .dw = dw.data_ptr(),
                                .tolerance = tolerance};
  const auto workspace = workspace_for(problem, sizes, w);
  cuda::scan_backward(launcher, problem, cell_sizes(sizes, w), plan.way);
  trial.finish(plan.chunks > 1 ? problem.counters : nullptr);
  record_backward_statistics(statistics_of(problem, plan, device, workspace, launcher));
  return {std::move(du), std::move(dw), std::move(dh0)};
}

}  // namespace pararnn::kernels
