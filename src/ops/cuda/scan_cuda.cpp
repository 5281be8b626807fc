// scan on CUDA tensors: plans the pass, allocates the boundary arrays, and launches the engine's
// kernels on the current stream. Nothing here waits for the device, so it can be captured in a
// graph once its kernels are loaded.
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "base/error.hpp"
#include "ops/cuda/scan_launch.hpp"
#include "ops/scan_kernels.hpp"
#include "pararnn/cells.hpp"
#include "pararnn/plan.hpp"

namespace pararnn {
namespace {

using cuda::ScanLauncher;
using torch::Tensor;

cuda::View view_of(const Tensor& t) {
  cuda::View view{t.data_ptr(), t.stride(0), t.stride(1), 0, 0, t.size(-1)};
  if (t.dim() >= 4) view.component_stride = t.stride(-2);
  if (t.dim() == 5) view.head_stride = t.stride(2);
  return view;
}

/// Whether two neighbouring channels can be read as one, everywhere in the tensor.
bool comes_in_pairs(const Tensor& t) {
  if (t.size(-1) % 2 != 0 || reinterpret_cast<uintptr_t>(t.data_ptr()) % (2 * t.element_size())) {
    return false;
  }
  for (int64_t i = 0; i + 1 < t.dim(); ++i) {
    if (t.stride(i) % 2 != 0) return false;
  }
  return true;
}

double default_tolerance(torch::ScalarType arithmetic) {
  return arithmetic == torch::kFloat64 ? 1e-12 : 1e-6;
}

// Columns (times chunks) of a multiprocessor that hide the latency of a step.
constexpr int kColumnsPerMultiprocessor = 512;

/// The plan for `width` channels a thread.
Plan plan_for(const ScanSizes& sizes, int width, const std::string& way, int64_t chunk,
              int64_t burn_in) {
  const int capacity = cuda::multiprocessor_count() * kColumnsPerMultiprocessor;
  // Columns enough for half of that are best run in order: in every regime the sequence is read
  // once.
  const bool enough = way == "auto" && chunk == 0 && 2 * sizes.batch * sizes.channels >= capacity;
  return make_plan({sizes.batch, sizes.steps, sizes.channels, 32 * width, capacity / (32 * width),
                    enough ? "sequential" : std::string_view(way), chunk, burn_in});
}

cuda::Chunking chunking_of(const ScanSizes& sizes, const Plan& plan) {
  return {sizes.batch, sizes.steps, sizes.channels, plan.chunk, plan.chunks, plan.burn_in};
}

/// Counters, and a mark for each column; zero.
struct Verification {
  Tensor bytes;
  cuda::Counters* counters = nullptr;
  unsigned char* failing = nullptr;

  Verification() = default;
  Verification(int64_t columns, const torch::Device& device)
      : bytes(torch::zeros({int64_t(sizeof(cuda::Counters)) + columns},
                           torch::dtype(torch::kUInt8).device(device))),
        counters(reinterpret_cast<cuda::Counters*>(bytes.data_ptr<uint8_t>())),
        failing(bytes.data_ptr<uint8_t>() + sizeof(cuda::Counters)) {}
};

ScanStatistics read_statistics(const Plan& plan, int64_t columns, const Tensor& bytes) {
  ScanStatistics result{std::string(way_name(plan.way)), plan.chunk, plan.chunks, plan.burn_in};
  result.columns = columns;
  if (!bytes.defined()) return result;
  const Tensor on_host = bytes.slice(0, 0, sizeof(cuda::Counters)).cpu();
  cuda::Counters counters;
  std::memcpy(&counters, on_host.data_ptr(), sizeof counters);
  float mismatch;
  std::memcpy(&mismatch, &counters.largest_mismatch_bits, sizeof mismatch);
  result.largest_mismatch = mismatch;
  result.newton_iterations = counters.newton_iterations;
  result.columns_corrected = counters.columns_corrected;
  result.columns_repaired = counters.columns_repaired;
  return result;
}

std::tuple<Tensor, Tensor, Tensor> scan_forward_cuda(const Tensor& u_in, const Tensor& w,
                                                     const std::optional<Tensor>& h0,
                                                     const std::string& cell,
                                                     const std::string& way, int64_t chunk,
                                                     int64_t burn_in, double tolerance,
                                                     int64_t checkpoint_interval) {
  const ScanSizes sizes = check_scan_arguments(u_in, w, h0, cell);
  const c10::cuda::CUDAGuard guard(u_in.device());
  const Tensor u = with_neighbouring_channels(u_in);
  const auto arithmetic = w.options();
  Tensor y = torch::empty({sizes.batch, sizes.steps, sizes.channels}, u.options());
  Tensor hT = torch::empty({sizes.batch, sizes.state, sizes.channels}, arithmetic);
  Tensor checkpoints =
      torch::empty({sizes.batch, checkpoint_count(sizes.steps, checkpoint_interval), sizes.state,
                    sizes.channels},
                   arithmetic);
  if (y.numel() == 0) {
    h0 ? hT.copy_(*h0) : hT.zero_();
    record_forward_statistics({});
    return {y, hT, checkpoints};
  }

  // Two channels of two bytes make the words that the hardware copies by itself.
  const int width = u.element_size() == 2 && comes_in_pairs(u) ? 2 : 1;
  const Plan plan = plan_for(sizes, width, way, chunk, burn_in);
  const int64_t columns = sizes.batch * sizes.channels, lanes = columns * plan.chunks;
  const auto boundary = [&](int64_t components) {
    return torch::empty({plan.chunks > 1 ? lanes * components : 0}, arithmetic);
  };
  const Tensor start = boundary(sizes.state), end = boundary(sizes.state),
               jacobian = boundary(sizes.state * sizes.state);
  const Verification verification =
      plan.chunks > 1 ? Verification(columns, u.device()) : Verification();
  const cuda::ForwardProblem problem{chunking_of(sizes, plan),
                                     view_of(u),
                                     view_of(y),
                                     w.const_data_ptr(),
                                     h0 ? h0->const_data_ptr() : nullptr,
                                     hT.data_ptr(),
                                     checkpoint_interval > 0 ? checkpoints.data_ptr() : nullptr,
                                     start.data_ptr(),
                                     end.data_ptr(),
                                     jacobian.data_ptr(),
                                     verification.failing,
                                     verification.counters,
                                     tolerance > 0 ? tolerance : default_tolerance(w.scalar_type()),
                                     plan.way == Way::kNewton};
  const ScanLauncher launcher(cell, u.scalar_type(), width, c10::cuda::getCurrentCUDAStream());
  if (plan.way == Way::kSequential) {
    launcher.forward_pass(problem, {.burn_in = false, .write = true, .linearize = false});
  } else {
    if (plan.way == Way::kSpeculative) {
      launcher.forward_pass(problem, {.burn_in = true, .write = true, .linearize = false});
    } else {
      launcher.forward_pass(problem, {.burn_in = true, .write = false, .linearize = true});
      launcher.forward_scan(problem);
      launcher.forward_pass(problem, {.burn_in = false, .write = true, .linearize = false});
    }
    launcher.forward_correct(problem);
  }
  record_forward_statistics([=, bytes = verification.bytes] {
    if (!bytes.defined()) return read_statistics(plan, columns, bytes);
    const c10::cuda::CUDAGuard guard(bytes.device());
    (void)start, (void)end, (void)w;  // kept alive; u and y are not looked at
    ScanLauncher(cell, u.scalar_type(), 1, c10::cuda::getCurrentCUDAStream())
        .forward_mismatch(problem);
    return read_statistics(plan, columns, bytes);
  });
  return {y, hT, checkpoints};
}

std::tuple<Tensor, Tensor, Tensor> scan_backward_cuda(const Tensor& u_in, const Tensor& w,
                                                      const Tensor& checkpoints,
                                                      const Tensor& dy_in, const Tensor& dhT,
                                                      const std::string& cell,
                                                      const std::string& way, int64_t chunk,
                                                      int64_t burn_in, double tolerance) {
  const ScanSizes sizes = check_scan_arguments(u_in, w, std::nullopt, cell);
  const c10::cuda::CUDAGuard guard(u_in.device());
  const Tensor u = with_neighbouring_channels(u_in);
  const Tensor dy = with_neighbouring_channels(dy_in);
  const Tensor final_adjoint = dhT.contiguous();
  Tensor du = with_neighbouring_channels(torch::empty_like(u));
  Tensor dw = torch::empty_like(w);
  Tensor dh0 = torch::empty_like(final_adjoint);
  if (dy.numel() == 0) {
    record_backward_statistics({});
    return {du, dw.zero_(), dh0.copy_(final_adjoint)};
  }
  const Plan plan = plan_for(sizes, 1, way, chunk, burn_in);
  const int64_t columns = sizes.batch * sizes.channels, lanes = columns * plan.chunks;
  const auto boundary = [&](int64_t components, bool needed = true) {
    return torch::empty({needed ? lanes * components : 0}, w.options());
  };
  const bool chunked = plan.chunks > 1;
  const Tensor end = boundary(sizes.state), start = boundary(sizes.state), peak = boundary(1),
               map_matrix = boundary(sizes.state * sizes.state, chunked),
               map_offset = boundary(sizes.state, chunked), dw_parts = boundary(sizes.params);
  const Verification verification = chunked ? Verification(columns, u.device()) : Verification();
  const cuda::BackwardProblem problem{
      chunking_of(sizes, plan),
      view_of(u),
      view_of(dy),
      view_of(du),
      w.const_data_ptr(),
      checkpoints.const_data_ptr(),
      final_adjoint.const_data_ptr(),
      dh0.data_ptr(),
      end.data_ptr(),
      start.data_ptr(),
      peak.data_ptr(),
      map_matrix.data_ptr(),
      map_offset.data_ptr(),
      dw_parts.data_ptr(),
      verification.failing,
      verification.counters,
      tolerance > 0 ? tolerance : default_tolerance(w.scalar_type())};
  const ScanLauncher launcher(cell, u.scalar_type(), 1, c10::cuda::getCurrentCUDAStream());
  using cuda::BackwardMode;
  if (plan.way == Way::kNewton) {
    launcher.backward_pass(problem, BackwardMode::kMap);
    launcher.backward_scan(problem);
    launcher.backward_pass(problem, BackwardMode::kGiven);
  } else {
    launcher.backward_pass(problem, BackwardMode::kBurnIn);
  }
  if (chunked) launcher.backward_correct(problem);
  launcher.sum_parts(problem, dw.data_ptr());
  record_backward_statistics([=, bytes = verification.bytes] {
    if (!bytes.defined()) return read_statistics(plan, columns, bytes);
    const c10::cuda::CUDAGuard guard(bytes.device());
    (void)start, (void)end, (void)peak;
    ScanLauncher(cell, u.scalar_type(), 1, c10::cuda::getCurrentCUDAStream())
        .backward_mismatch(problem);
    return read_statistics(plan, columns, bytes);
  });
  return {du, dw, dh0};
}

}  // namespace

TORCH_LIBRARY_IMPL(pararnn, CUDA, m) {
  m.impl("_scan_forward", &scan_forward_cuda);
  m.impl("_scan_backward", &scan_backward_cuda);
}

}  // namespace pararnn
