// RMSNorm on a GPU, with what stands before and behind it in a block (rms_norm.hpp): the residual
// connection whose sum is normalised, and the gate by which the result is multiplied.
//
//   sum = x + scale ⊙ branch              (with kResidual; otherwise sum = x)
//   y   = weight ⊙ sum r ⊙ silu(gate),    r = 1 / sqrt(mean(sum²) + ε)    (NormGate::kAfter)
//
// With NormGate::kBefore, without a residual, sum = x ⊙ silu(gate) is normalised.
#pragma once

#include "ops/rms_norm/rms_norm_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

template <class X, class Y, class P, int kWidth, int kPacks, int kThreads, bool kResidual,
          NormGate kGate>
__global__ void __launch_bounds__(RowShare<kWidth, kPacks, kThreads>::kBlock)
    rms_norm_forward(const __grid_constant__ RmsNormForward problem) {
  using Share = RowShare<kWidth, kPacks, kThreads>;
  constexpr int kChannels = Share::kChannels;
  using Values = typename Share::Values;
  const int width = problem.width;
  const float part = 1.0f / width;  // of a channel in a mean
  const Values weight = Share::load(static_cast<const P*>(problem.weight), width);
  Values scale{};
  if constexpr (kResidual) scale = Share::load(static_cast<const P*>(problem.scale), width);
  struct Row {
    typename Share::template Fetched<X> x;
    typename Share::template Fetched<Y> branch, gate;
  };
  const auto fetch = [&](Int row) {
    Row result{};
    result.x = Share::fetch(static_cast<const X*>(problem.x) + row * problem.x_stride, width);
    if constexpr (kResidual) {
      result.branch =
          Share::fetch(static_cast<const Y*>(problem.branch) + row * problem.branch_stride, width);
    }
    if constexpr (kGate != NormGate::kNone) {
      result.gate =
          Share::fetch(static_cast<const Y*>(problem.gate) + row * problem.gate_stride, width);
    }
    return result;
  };
  Share::for_each_row(problem.rows, fetch, [&](Int row, bool there, const Row& here, int turn) {
    Values x = here.x.unpack();
    if constexpr (kResidual) {
      const Values branch = here.branch.unpack();
      // What is normalised is what is stored.
      static_for<kChannels>([&](auto i) {
        x[i] = cuda::to_arithmetic(cuda::Converted<X>::from(x[i] + scale[i] * branch[i]));
      });
      if (there) Share::store(x, static_cast<X*>(problem.sum) + row * width, width);
    }
    Values gate{};
    if constexpr (kGate != NormGate::kNone) {
      gate = here.gate.unpack();
      static_for<kChannels>([&](auto i) { gate[i] = silu(gate[i]); });
    }
    if constexpr (kGate == NormGate::kBefore) {
      static_for<kChannels>([&](auto i) { x[i] *= gate[i]; });
    }
    Vec<float, 1> squares{};
    static_for<kChannels>([&](auto i) { squares[0] += x[i] * x[i]; });
    const float inverse = 1 / sqrt(Share::sum(squares, turn)[0] * part + problem.epsilon);
    static_for<kChannels>([&](auto i) { x[i] = x[i] * inverse * weight[i]; });
    if constexpr (kGate == NormGate::kAfter) {
      static_for<kChannels>([&](auto i) { x[i] *= gate[i]; });
    }
    if (there) Share::store(x, static_cast<Y*>(problem.y) + row * width, width);
  });
}

/// With n = x r and g = dL/dn: dL/dx = r (g - n mean(g ⊙ n)).
template <class X, class Y, class P, int kWidth, int kPacks, int kThreads, bool kResidual,
          NormGate kGate>
__global__ void __launch_bounds__(RowShare<kWidth, kPacks, kThreads>::kBlock)
    rms_norm_backward(const __grid_constant__ RmsNormBackward problem) {
  using Share = RowShare<kWidth, kPacks, kThreads>;
  constexpr int kChannels = Share::kChannels;
  using Values = typename Share::Values;
  const int width = problem.width;
  const float part = 1.0f / width;  // of a channel in a mean
  const Values weight = Share::load(static_cast<const P*>(problem.weight), width);
  Values scale{}, dweight{}, dscale{};
  if constexpr (kResidual) scale = Share::load(static_cast<const P*>(problem.scale), width);
  struct Row {
    typename Share::template Fetched<X> x, dsum;
    typename Share::template Fetched<Y> dy, branch, gate;
  };
  const auto fetch = [&](Int row) {
    Row result{};
    result.x = Share::fetch(static_cast<const X*>(problem.x) + row * problem.x_stride, width);
    result.dy = Share::fetch(static_cast<const Y*>(problem.dy) + row * problem.dy_stride, width);
    if constexpr (kGate != NormGate::kNone) {
      result.gate =
          Share::fetch(static_cast<const Y*>(problem.gate) + row * problem.gate_stride, width);
    }
    if constexpr (kResidual) {
      result.branch =
          Share::fetch(static_cast<const Y*>(problem.branch) + row * problem.branch_stride, width);
      if (problem.dsum) {
        result.dsum =
            Share::fetch(static_cast<const X*>(problem.dsum) + row * problem.dsum_stride, width);
      }
    }
    return result;
  };
  Share::for_each_row(problem.rows, fetch, [&](Int row, bool there, const Row& here, int turn) {
    Values x = here.x.unpack(), dy = here.dy.unpack();
    Values slope{};  // of y along the gate, over dy; or of what is normalised, over its gradient
    Values gated{};  // by which x is multiplied before the norm
    if constexpr (kGate == NormGate::kAfter) {
      const Values gate = here.gate.unpack();
      static_for<kChannels>([&](auto i) {
        slope[i] = dy[i] * x[i] * weight[i] * silu_slope(gate[i]);
        dy[i] *= silu(gate[i]);
      });
    } else if constexpr (kGate == NormGate::kBefore) {
      const Values gate = here.gate.unpack();
      static_for<kChannels>([&](auto i) {
        slope[i] = x[i] * silu_slope(gate[i]);
        gated[i] = silu(gate[i]);
        x[i] *= gated[i];
      });
    }
    Vec<float, 2> sums{};  // of x², and of g ⊙ x
    static_for<kChannels>([&](auto i) {
      sums[0] += x[i] * x[i];
      sums[1] += dy[i] * weight[i] * x[i];
    });
    sums = Share::sum(sums, turn);
    const float inverse = 1 / sqrt(sums[0] * part + problem.epsilon);
    const float mean = sums[1] * inverse * part;
    const auto store_slope = [&] {
      Share::store(slope, static_cast<Y*>(problem.dgate) + row * problem.dgate_stride, width);
    };
    if (!there) return;
    if constexpr (kGate == NormGate::kAfter) {
      static_for<kChannels>([&](auto i) { slope[i] *= inverse; });
      store_slope();
    }
    static_for<kChannels>([&](auto i) {
      const float normed = x[i] * inverse;
      dweight[i] += dy[i] * normed;
      x[i] = inverse * (dy[i] * weight[i] - normed * mean);
    });
    if constexpr (kGate == NormGate::kBefore) {
      static_for<kChannels>([&](auto i) {
        slope[i] *= x[i];
        x[i] *= gated[i];
      });
      store_slope();
    }
    if constexpr (kResidual) {
      const Values dsum = here.dsum.unpack(), branch = here.branch.unpack();
      static_for<kChannels>([&](auto i) { x[i] += dsum[i]; });
      Values dbranch{};
      static_for<kChannels>([&](auto i) {
        dscale[i] += x[i] * branch[i];
        dbranch[i] = x[i] * scale[i];
      });
      Share::store(dbranch, static_cast<Y*>(problem.dbranch) + row * width, width);
    }
    Share::store(x, static_cast<X*>(problem.dx) + row * width, width);
  });
  float* sums = problem.sums + Int(blockIdx.x) * (kResidual ? 2 : 1) * width;
  Share::store_sum_of_block(dweight, sums, width);
  if constexpr (kResidual) Share::store_sum_of_block(dscale, sums + width, width);
}

}  // namespace pararnn::ops
