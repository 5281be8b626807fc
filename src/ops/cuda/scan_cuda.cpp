// scan on CUDA tensors: plans the pass, allocates the boundary arrays, and launches the engine's
// kernels on the current stream. Nothing here waits for the device, so it can be captured in a
// graph once its kernels are loaded.
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <cstring>

#include "jit/kernel.hpp"
#include "ops/cuda/channel_pairs.hpp"
#include "ops/cuda/plan_trial.hpp"
#include "ops/cuda/scan_launch.hpp"
#include "ops/scan_kernels.hpp"
#include "pararnn/plan.hpp"

namespace pararnn {
namespace {

using cuda::ScanLauncher;
using torch::Tensor;

cuda::View view_of(const Tensor& t) {
  cuda::View view{t.data_ptr(), t.stride(0), t.stride(1), 0, t.size(-1), t.size(-1)};
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

/// Two channels a thread take fewer instructions than one a thread, but are half as many warps to
/// hide each other's latency: up to so many blocks on a multiprocessor, one a thread is faster.
constexpr int64_t kFewBlocks = 1;

PlanRequest request_for(const ScanSizes& sizes, int width, StepTime step, const std::string& way,
                        int64_t chunk, int64_t burn_in) {
  return {.batch = sizes.batch,
          .steps = sizes.steps,
          .channels = sizes.channels,
          .lanes = cuda::kThreadsPerBlock * width,
          .threads = cuda::multiprocessor_count(),
          .way = way,
          .chunk = chunk,
          .burn_in = burn_in,
          .step_base = step.base,
          .step_slope = step.slope};
}

cuda::Chunking chunking_of(const ScanSizes& sizes, const Plan& plan) {
  return {sizes.batch, sizes.steps, sizes.channels, plan.chunk, plan.chunks, plan.burn_in};
}

/// The arrays of a pass in one piece of device memory.
class Workspace {
 public:
  /// Room for `bytes` more; 0 for an array that the plan does not need. Returns its place.
  int64_t add(int64_t bytes) {
    constexpr int64_t kAlignment = 256;
    const int64_t at = size_;
    size_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
  void allocate(const torch::Device& device) {
    memory_ = torch::empty({size_}, torch::dtype(torch::kUInt8).device(device));
  }
  uint8_t* at(int64_t place) const { return memory_.data_ptr<uint8_t>() + place; }

 private:
  int64_t size_ = 0;
  Tensor memory_;
};

/// Waits for what was launched on the stream.
ScanStatistics read_statistics(const Plan& plan, int64_t columns, const cuda::Counters* found,
                               cudaStream_t stream) {
  ScanStatistics result{std::string(way_name(plan.way)), plan.chunk, plan.chunks, plan.burn_in};
  result.columns = columns;
  if (plan.chunks == 1) return result;
  cuda::Counters counters;
  const char* action = "read the statistics of a scan";
  jit::check_cuda(
      cudaMemcpyAsync(&counters, found, sizeof counters, cudaMemcpyDeviceToHost, stream), action);
  jit::check_cuda(cudaStreamSynchronize(stream), action);
  float mismatch;
  std::memcpy(&mismatch, &counters.largest_mismatch_bits, sizeof mismatch);
  result.largest_mismatch = mismatch;
  result.newton_iterations = counters.newton_iterations;
  result.columns_corrected = counters.columns_corrected;
  result.columns_repaired = counters.columns_repaired;
  return result;
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
  // Two channels of two bytes make the words that the hardware copies by itself.
  const bool all_in_pairs =
      comes_in_pairs(u) && comes_in_pairs(y) && comes_in_pairs(hT) && comes_in_pairs(checkpoints);
  const int pair = u.element_size() == 2 && all_in_pairs ? 2 : 1;
  w = aligned_for(pair, w);
  if (h0) h0 = aligned_for(pair, *h0);
  const PlanRequest request = request_for(sizes, pair, kForwardStep, way, chunk, burn_in);
  PlanTrial trial({u.get_device(), false, cell, u.scalar_type(), sizes.batch, sizes.steps,
                   sizes.channels, w_in.const_data_ptr()},
                  request, stream);
  const Plan plan = trial.plan();
  const bool chunked = plan.chunks > 1, decodes = sizes.steps == 1 && checkpoint_interval == 0;
  const int64_t columns = sizes.batch * sizes.channels;
  Workspace workspace;
  const auto add_boundary = [&](int64_t components) {
    return workspace.add(chunked ? columns * plan.chunks * components * w.element_size() : 0);
  };
  const int64_t start = add_boundary(sizes.state), end = add_boundary(sizes.state),
                jacobian = add_boundary(sizes.state * sizes.state),
                failing = workspace.add(chunked ? columns : 0),
                counters = workspace.add(sizeof(cuda::Counters));
  workspace.allocate(u.device());
  const cuda::ForwardProblem problem{chunking_of(sizes, plan),
                                     view_of(u),
                                     view_of(y),
                                     w.const_data_ptr(),
                                     h0 ? h0->const_data_ptr() : nullptr,
                                     hT.data_ptr(),
                                     checkpoint_interval > 0 ? checkpoints.data_ptr() : nullptr,
                                     workspace.at(start),
                                     workspace.at(end),
                                     workspace.at(jacobian),
                                     workspace.at(failing),
                                     reinterpret_cast<cuda::Counters*>(workspace.at(counters)),
                                     tolerance_for(tolerance, w.scalar_type()),
                                     plan.way == Way::kNewton};
  const bool few = columns * plan.chunks <= kFewBlocks * request.lanes * request.threads;
  const cuda::Width width{few && !decodes ? 1 : pair, pair};
  const ScanLauncher launcher(cell, u.scalar_type(), width, stream);
  switch (plan.way) {
    case Way::kSequential:
      if (decodes) {
        launcher.decode_step(problem);
        break;
      }
      launcher.forward_pass(problem, {.burn_in = false, .write = true, .linearize = false});
      break;
    case Way::kSpeculative:
      launcher.forward_pass(problem, {.burn_in = true, .write = true, .linearize = false});
      break;
    case Way::kNewton:
      launcher.forward_pass(problem, {.burn_in = true, .write = false, .linearize = true});
      launcher.forward_scan(problem);
      launcher.forward_pass(problem, {.burn_in = false, .write = true, .linearize = false});
      break;
  }
  if (chunked) launcher.forward_correct(problem);
  trial.finish(chunked ? problem.counters : nullptr);
  record_forward_statistics([plan, columns, workspace, problem, launcher, stream] {
    const c10::cuda::CUDAGuard on_its_device(stream.device());
    if (plan.chunks > 1) launcher.forward_mismatch(problem);  // looks at the workspace alone
    return read_statistics(plan, columns, problem.counters, stream);
  });
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
  PlanTrial trial({u.get_device(), true, cell, u.scalar_type(), sizes.batch, sizes.steps,
                   sizes.channels, w_in.const_data_ptr()},
                  request_for(sizes, 1, kBackwardStep, way, chunk, burn_in), stream);
  const Plan plan = trial.plan();
  const bool chunked = plan.chunks > 1;
  const int64_t columns = sizes.batch * sizes.channels;
  Workspace workspace;
  const auto add_boundary = [&](int64_t components, bool needed = true) {
    return workspace.add(needed ? columns * plan.chunks * components * w.element_size() : 0);
  };
  const int64_t end = add_boundary(sizes.state), start = add_boundary(sizes.state),
                peak = add_boundary(1),
                map_matrix = add_boundary(sizes.state * sizes.state, chunked),
                map_offset = add_boundary(sizes.state, chunked),
                dw_parts = add_boundary(sizes.params), failing = workspace.add(columns),
                counters = workspace.add(sizeof(cuda::Counters));
  workspace.allocate(u.device());
  const cuda::BackwardProblem problem{chunking_of(sizes, plan),
                                      view_of(u),
                                      view_of(dy),
                                      view_of(du),
                                      w.const_data_ptr(),
                                      checkpoints.const_data_ptr(),
                                      dhT.const_data_ptr(),
                                      dh0.data_ptr(),
                                      workspace.at(end),
                                      workspace.at(start),
                                      workspace.at(peak),
                                      workspace.at(map_matrix),
                                      workspace.at(map_offset),
                                      workspace.at(dw_parts),
                                      dw.data_ptr(),
                                      workspace.at(failing),
                                      reinterpret_cast<cuda::Counters*>(workspace.at(counters)),
                                      tolerance_for(tolerance, w.scalar_type())};
  const ScanLauncher launcher(cell, u.scalar_type(), {}, stream);
  using cuda::BackwardMode;
  switch (plan.way) {
    case Way::kSequential:
      launcher.backward_pass(problem, BackwardMode::kGiven);
      launcher.sum_parts(problem);
      break;
    case Way::kSpeculative:
      launcher.backward_pass(problem, BackwardMode::kBurnIn);
      break;
    case Way::kNewton:
      launcher.backward_pass(problem, BackwardMode::kMap);
      launcher.backward_scan(problem);
      launcher.backward_pass(problem, BackwardMode::kGiven);
      break;
  }
  if (chunked) launcher.backward_correct(problem);
  trial.finish(chunked ? problem.counters : nullptr);
  record_backward_statistics([plan, columns, workspace, problem, launcher, stream] {
    const c10::cuda::CUDAGuard on_its_device(stream.device());
    if (plan.chunks > 1) launcher.backward_mismatch(problem);
    return read_statistics(plan, columns, problem.counters, stream);
  });
  return {du, dw, dh0};
}

}  // namespace

TORCH_LIBRARY_IMPL(pararnn, CUDA, m) {
  m.impl("_scan_forward", &scan_forward_cuda);
  m.impl("_scan_backward", &scan_backward_cuda);
}

}  // namespace pararnn
