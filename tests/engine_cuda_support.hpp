// The GPU's scan on the host: its kernels and its driver as they are, on fibers in place of the
// device's threads. All that the scan is to write holds NaN at first.
#pragma once

#include "engine_test_support.hpp"
#include "pararnn/cuda/scan_backward.hpp"
#include "pararnn/cuda/scan_forward.hpp"

// With cuda_on_host.hpp in place of the GPU, which tests/CMakeLists.txt says.
#include "pararnn/cuda/backward_correct.hpp"
#include "pararnn/cuda/backward_sections.hpp"
#include "pararnn/cuda/decode.hpp"
#include "pararnn/cuda/forward_correct.hpp"

namespace pararnn::test {

using cuda::BackwardPass;
using cuda::ForwardPass;
using cuda::Kernel;

template <class Problem>
using Function = void (*)(Problem);

/// The functions of every kernel of a cell, for rows within which states may start anew, or not.
template <class C, class Storage, bool kStarts>
struct Functions {
  template <int V, int W>
  static Function<cuda::ForwardProblem> pass(ForwardPass how) {
    switch (how) {
      case ForwardPass::kGiven:
        return &cuda::forward_pass<C, Storage, V, W, ForwardPass::kGiven, kStarts>;
      case ForwardPass::kBurnIn:
        return &cuda::forward_pass<C, Storage, V, W, ForwardPass::kBurnIn, kStarts>;
      default:
        return &cuda::forward_pass<C, Storage, V, W, ForwardPass::kMap, kStarts>;
    }
  }
  static Function<cuda::ForwardProblem> of(const Kernel& kernel, const cuda::ForwardProblem&) {
    const auto [thread, load] = kernel.width;
    switch (kernel.name) {
      case Kernel::kForwardPass:
        if (load == 1) return pass<1, 1>(kernel.forward);
        if constexpr (sizeof(Storage) == 2) {
          return thread == 1 ? pass<1, 2>(kernel.forward) : pass<2, 2>(kernel.forward);
        }
        break;
      case Kernel::kDecodeStep:
        if (thread == 1) return &cuda::decode_step<C, Storage, 1>;
        if constexpr (sizeof(Storage) == 2) return &cuda::decode_step<C, Storage, 2>;
        break;
      case Kernel::kForwardScan:
        return &cuda::forward_scan<C, Storage>;
      case Kernel::kForwardCorrect:
        return &cuda::forward_correct<C, Storage, kStarts>;
      case Kernel::kForwardMismatch:
        return &cuda::forward_mismatch<C, Storage>;
      default:
        break;
    }
    return nullptr;
  }
  static Function<cuda::BackwardProblem> of(const Kernel& kernel, const cuda::BackwardProblem&) {
    switch (kernel.name) {
      case Kernel::kBackwardPass:
        switch (kernel.backward) {
          case BackwardPass::kGiven:
            return &cuda::backward_pass<C, Storage, 1, BackwardPass::kGiven, kStarts>;
          case BackwardPass::kBurnIn:
            return &cuda::backward_pass<C, Storage, 1, BackwardPass::kBurnIn, kStarts>;
          case BackwardPass::kMap:
            return &cuda::backward_pass<C, Storage, 1, BackwardPass::kMap, kStarts>;
        }
        break;
      case Kernel::kBackwardSections:
        switch (kernel.groups) {
          case 2:
            return &cuda::backward_sections<C, Storage, 2>;
          case 4:
            return &cuda::backward_sections<C, Storage, 4>;
          case 8:
            return &cuda::backward_sections<C, Storage, 8>;
        }
        break;
      case Kernel::kBackwardScan:
        return &cuda::backward_scan<C, Storage, kStarts>;
      case Kernel::kBackwardCorrect:
        return &cuda::backward_correct<C, Storage, kStarts>;
      case Kernel::kBackwardMismatch:
        return &cuda::backward_mismatch<C, Storage>;
      case Kernel::kSumParts:
        return &cuda::sum_parts<C, Storage>;
      default:
        break;
    }
    return nullptr;
  }
};

/// A GPU of a few multiprocessors, each of which holds two blocks of a cooperative grid.
template <class C, class Storage, bool kStarts>
struct FiberLauncher {
  int count = 2;
  std::vector<Kernel>* prepared = nullptr;

  int multiprocessors() const { return count; }
  void prepare(std::span<const Kernel> kernels) const {
    prepared->assign(kernels.begin(), kernels.end());
  }
  template <class Problem>
  void launch(const Kernel& kernel, const Problem& problem) const {
    const auto function = Functions<C, Storage, kStarts>::of(kernel, problem);
    if (!function) throw std::logic_error("no kernel " + cuda::kernel_expression(kernel, "", ""));
    cuda::Grid grid = cuda::grid_of(kernel, problem.size, C::kParams, count);
    if (grid.cooperative) grid.blocks = std::min<cuda::Int>(grid.blocks, 2 * count);
    fibers::machine.run(grid, [&] { function(problem); });
  }
  cuda::Counters read(const cuda::Counters* counters) const { return *counters; }
};

template <class Storage>
inline constexpr cpu::Storage kStorageAs =
    kSame<Storage, cuda::Float16>    ? cpu::Storage::kFloat16
    : kSame<Storage, cuda::BFloat16> ? cpu::Storage::kBFloat16
    : kSame<Storage, float>          ? cpu::Storage::kFloat32
                                     : cpu::Storage::kFloat64;

inline cuda::TensorView view_of(const Stored& stored) {
  const cpu::TensorView& v = stored.view;
  return {v.data, v.batch_stride, v.step_stride, v.component_stride, v.head_stride, v.head_width};
}

template <class Problem>
std::vector<unsigned char> workspace_for(Problem& problem, const cuda::CellSizes& cell) {
  std::vector<unsigned char> memory(cuda::place_workspace(problem, cell, nullptr) + 256, 0xff);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  cuda::place_workspace(problem, cell, memory.data() + (256 - address % 256) % 256);
  return memory;
}

template <class C>
inline constexpr const char* kNameOf = nullptr;
#define PARARNN_NAME(name, Type) \
  template <>                    \
  inline constexpr const char* kNameOf<Type> = #name;
PARARNN_CELLS(PARARNN_NAME)
#undef PARARNN_NAME

/// A cell on tensors of a storage.
template <class Cell, class StorageType>
struct On {
  using C = Cell;
  using Storage = StorageType;
  using T = cuda::Arithmetic<Storage>;
};

/// The GPU's scan, forward and backward; or forward without checkpoints, where its kernels are
/// asked for. Takes of `how` what concerns a GPU.
template <class On, bool kStarts = false, class T = typename On::T>
Result<T> run_on_fibers(const Problem<T>& p, const Running& how, int multiprocessors = 2,
                        std::vector<Kernel>* forward_only = nullptr) {
  using Storage = typename On::Storage;
  const auto [batch, steps, channels] = p.shape;
  Stored u(p.shape, p.U, how.layout, kStorageAs<Storage>);
  Stored y(p.shape, 1, how.layout, kStorageAs<Storage>);
  Stored dy(p.shape, 1, how.layout, kStorageAs<Storage>);
  Stored du(p.shape, p.U, how.layout, kStorageAs<Storage>);
  u.fill(p.u);
  dy.fill(p.dy);
  const T unwritten = std::numeric_limits<T>::quiet_NaN();
  Result<T> r;
  r.hT.resize(p.h0.size(), unwritten);
  r.dw.resize(p.P * channels, unwritten);
  r.dh0.resize(p.h0.size(), unwritten);
  const std::int64_t interval = cuda::kCheckpointInterval;
  const std::int64_t count = (steps + interval - 1) / interval;
  std::vector<T> checkpoints(batch * count * p.S * channels, unwritten);

  const cuda::CellSizes sizes{p.S, p.P, sizeof(T)};
  const int pair = std::min(cuda::pair_of(view_of(u), sizeof(Storage)),
                            cuda::pair_of(view_of(y), sizeof(Storage)));
  const Plan plan = make_plan({.batch = batch,
                               .steps = steps,
                               .channels = channels,
                               .lanes = cuda::kThreadsPerBlock * pair,
                               .threads = multiprocessors,
                               .way = how.way,
                               .chunk = how.chunk,
                               .burn_in = how.burn_in,
                               .step_slope = 0.3});
  const cuda::Chunking size{batch, steps, channels, plan.chunk, plan.chunks, plan.burn_in};
  std::vector<Kernel> prepared;
  const FiberLauncher<typename On::C, Storage, kStarts> launcher{multiprocessors, &prepared};
  cuda::ForwardProblem forward{.size = size,
                               .u = view_of(u),
                               .y = view_of(y),
                               .sequences = p.sequences(),
                               .w = p.w.data(),
                               .h0 = how.with_h0 ? p.h0.data() : nullptr,
                               .hT = r.hT.data(),
                               .checkpoints = forward_only ? nullptr : checkpoints.data(),
                               .tolerance = kDefaultTolerance<T>};
  const auto forward_memory = workspace_for(forward, sizes);
  cuda::scan_forward(launcher, forward, plan.way, pair);
  r.forward = cuda::read_statistics(launcher, forward, plan);
  r.y = y.values<T>();
  if (forward_only) {
    *forward_only = prepared;
    return r;
  }
  cuda::BackwardProblem backward{.size = size,
                                 .u = view_of(u),
                                 .dy = view_of(dy),
                                 .du = view_of(du),
                                 .sequences = p.sequences(),
                                 .w = p.w.data(),
                                 .h0 = forward.h0,
                                 .checkpoints = checkpoints.data(),
                                 .dhT = p.dhT.data(),
                                 .dh0 = r.dh0.data(),
                                 .dw = r.dw.data(),
                                 .tolerance = kDefaultTolerance<T>};
  const auto backward_memory = workspace_for(backward, sizes);
  cuda::scan_backward(launcher, backward, sizes, plan.way);
  r.backward = cuda::read_statistics(launcher, backward, plan);
  r.du = du.values<T>();
  r.in_bounds_of_memory = y.surroundings_untouched() && du.surroundings_untouched();
  // The reference follows every kChunkUnit-th step.
  const std::int64_t row = p.S * channels, every = kChunkUnit / interval;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t i = 0; i < count; i += every) {
      const auto from = checkpoints.begin() + (b * count + i) * row;
      r.checkpoints.insert(r.checkpoints.end(), from, from + row);
    }
  }
  return r;
}

}  // namespace pararnn::test
