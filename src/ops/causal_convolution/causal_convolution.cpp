#include "ops/causal_convolution/causal_convolution.hpp"

#include <ATen/record_function.h>
#include <torch/autograd.h>

#include <algorithm>
#include <cmath>

#include "ops/causal_convolution/causal_convolution_cuda.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/halves/halves.hpp"
#include "ops/row_sum/row_sum.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

// One text of the batch: row t of the input, for t from -(taps - 1), where `before` begins.
template <class T>
struct Sequence {
  T* data;
  T* before;
  int64_t stride, before_rows, width;
  T* operator[](int64_t t) const {
    return t >= 0 ? data + t * stride : before + (before_rows + t) * width;
  }
};

// Sums are gathered in a tile of channels that stays in the first-level cache.
constexpr int64_t kTile = 512;

// Adds weight ⊙ row to the tile.
template <class T, class A>
[[gnu::always_inline]] inline void accumulate(A* sums, const A* weight, const T* row,
                                              int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) sums[i] += weight[i] * widen(row[i]);
}

template <class T, class A>
[[gnu::always_inline]] inline void store(T* row, const A* sums, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) row[i] = narrow<T>(sums[i]);
}

// s -> silu(s)
template <class A>
[[gnu::always_inline]] inline void activate(A* sums, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) sums[i] *= sigmoid(sums[i]);
}

// s -> dy silu'(s)
template <class T, class A>
[[gnu::always_inline]] inline void differentiate(A* sums, const T* dy, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const A s = sigmoid(sums[i]);
    sums[i] = widen(dy[i]) * s * (1 + sums[i] * (1 - s));
  }
}

// `starts`: for each step, the one at which its row started anew last; null where rows do not. With
// a bias y is behind silu; where `dy` is given, whose rows are so far apart, it is the gradient of
// the sums before silu instead.
template <class T>
PARARNN_VECTORISED void forward_steps(Sequence<const T> x, const Arithmetic<T>* taps,
                                      int64_t tap_count, const Arithmetic<T>* bias,
                                      const int64_t* starts, const T* dy, int64_t dy_stride, T* y,
                                      int64_t begin, int64_t end) {
  Arithmetic<T> sums[kTile];
  for (int64_t tile = 0; tile < x.width; tile += kTile) {
    const int64_t width = std::min(kTile, x.width - tile);
    for (int64_t t = begin; t < end; ++t) {
      if (bias) {
        std::copy_n(bias + tile, width, sums);
      } else {
        std::fill_n(sums, width, Arithmetic<T>(0));
      }
      const int64_t missing = starts ? starts[t] - (t - tap_count + 1) : 0;
      for (int64_t k = std::max<int64_t>(missing, 0); k < tap_count; ++k) {
        accumulate(sums, taps + k * x.width + tile, x[t - tap_count + 1 + k] + tile, width);
      }
      if (dy) {
        differentiate(sums, dy + t * dy_stride + tile, width);
      } else if (bias) {
        activate(sums, width);
      }
      store(y + t * x.width + tile, sums, width);
    }
  }
}

// The gradient of the inputs at steps [begin, end), which may start before 0, and, for those of
// `dy` from 0 on, their part of the gradient of the taps.
template <class T>
PARARNN_VECTORISED void backward_steps(Sequence<const T> x, const Arithmetic<T>* taps,
                                       int64_t tap_count, const int64_t* starts, const T* dy,
                                       int64_t dy_stride, int64_t steps, Sequence<T> dx,
                                       Arithmetic<T>* dtaps, int64_t begin, int64_t end) {
  using A = Arithmetic<T>;
  A sums[kTile];
  for (int64_t tile = 0; tile < x.width; tile += kTile) {
    const int64_t width = std::min(kTile, x.width - tile);
    for (int64_t t = begin; t < end; ++t) {
      std::fill_n(sums, width, A(0));
      for (int64_t k = 0; k < tap_count; ++k) {
        const int64_t later = t + tap_count - 1 - k;
        if (later < 0 || later >= steps || (starts && t < starts[later])) continue;
        accumulate(sums, taps + k * x.width + tile, dy + later * dy_stride + tile, width);
      }
      store(dx[t] + tile, sums, width);
      if (t < 0) continue;
      const T* dys = dy + t * dy_stride + tile;
      const int64_t missing = starts ? starts[t] - (t - tap_count + 1) : 0;
      for (int64_t k = std::max<int64_t>(missing, 0); k < tap_count; ++k) {
        const T* xs = x[t - tap_count + 1 + k] + tile;
        A* gradients = dtaps + k * x.width + tile;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) gradients[i] += widen(dys[i]) * widen(xs[i]);
      }
    }
  }
}

template <class T>
Sequence<T> sequence(const Tensor& x, const Tensor& before, int64_t row) {
  const int64_t before_rows = before.size(1), width = x.size(2);
  return {static_cast<T*>(x.data_ptr()) + row * x.stride(0),
          static_cast<T*>(before.data_ptr()) + row * before_rows * width, x.stride(1), before_rows,
          width};
}

// Calls work(piece, row, begin, end) for pieces of the steps of every row of the batch, on all
// threads.
template <class Work>
void for_each_piece(int64_t batch, int64_t steps, const Work& work) {
  const int64_t pieces = block_count(steps);
  at::parallel_for(0, batch * pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      const int64_t begin = piece % pieces * kRowsPerBlock;
      work(piece, piece / pieces, begin, std::min(steps, begin + kRowsPerBlock));
    }
  });
}

// (B,T) int64, -K where a row has not started anew yet.
Tensor starts_of(const Tensor& reset, int64_t tap_count) {
  const Tensor steps = torch::arange(reset.size(1)).expand_as(reset);
  return std::get<0>(torch::where(reset, steps, torch::full({}, -tap_count)).cummax(1));
}

// The tensor itself where its channels are contiguous.
Tensor with_contiguous_channels(const Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

// What a convolution is of.
struct ConvolutionInputs {
  Tensor x, taps, before, starts, bias;

  static const int64_t* of_row(const Tensor& starts, int64_t row) {
    return starts.defined() ? starts.const_data_ptr<int64_t>() + row * starts.stride(0) : nullptr;
  }

  /// By the loops: y; or, given its gradient, that of the sums before silu.
  Tensor forward_loops(const Tensor& dy = {}) const {
    const Tensor y = torch::empty(x.sizes(), x.options());
    with_type(x.scalar_type(), [&]<class T>(T) {
      using A = Arithmetic<T>;
      const auto in_arithmetic = [](const Tensor& t) {
        return t.defined() ? t.to(torch::CppTypeToScalarType<A>::value).contiguous() : t;
      };
      const Tensor weights = in_arithmetic(taps), biases = in_arithmetic(bias);
      for_each_piece(x.size(0), x.size(1), [&](int64_t, int64_t row, int64_t begin, int64_t end) {
        const bool slopes = dy.defined();
        forward_steps<T>(
            sequence<const T>(x, before, row), weights.data_ptr<A>(), taps.size(0),
            biases.defined() ? biases.data_ptr<A>() : nullptr, of_row(starts, row),
            slopes ? static_cast<const T*>(dy.const_data_ptr()) + row * dy.stride(0) : nullptr,
            slopes ? dy.stride(1) : 0, static_cast<T*>(y.data_ptr()) + row * y.stride(0), begin,
            end);
      });
    });
    return y;
  }

  /// By the loops: writes dx and dbefore, and returns dtaps and dbias.
  std::pair<Tensor, Tensor> backward_loops(Tensor dy, const Tensor& dx,
                                           const Tensor& dbefore) const {
    Tensor dtaps, dbias;
    if (bias.defined()) {
      dy = forward_loops(dy);
      dbias = sum_of_rows(dy.flatten(0, 1), bias.scalar_type());
    }
    const int64_t tap_count = taps.size(0), steps = x.size(1);
    with_type(x.scalar_type(), [&]<class T>(T) {
      using A = Arithmetic<T>;
      const auto arithmetic = torch::CppTypeToScalarType<A>::value;
      const Tensor weights = taps.to(arithmetic).contiguous();
      const Tensor partial = torch::zeros({x.size(0) * block_count(steps), tap_count, x.size(2)},
                                          x.options().dtype(arithmetic));
      for_each_piece(x.size(0), steps, [&](int64_t piece, int64_t row, int64_t begin, int64_t end) {
        backward_steps<T>(sequence<const T>(x, before, row), weights.data_ptr<A>(), tap_count,
                          of_row(starts, row), static_cast<T*>(dy.data_ptr()) + row * dy.stride(0),
                          dy.stride(1), steps, sequence<T>(dx, dbefore, row),
                          partial.data_ptr<A>() + piece * partial.stride(0),
                          begin == 0 ? 1 - tap_count : begin, end);
      });
      dtaps = partial.sum(0).to(taps.scalar_type());
    });
    return {dtaps, dbias};
  }
};

struct FusedConvolution : torch::autograd::Function<FusedConvolution> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& taps, const Tensor& input_before,
                        const std::optional<Tensor>& reset, const std::optional<Tensor>& bias) {
    const Tensor x = with_contiguous_channels(input);
    // Where rows start anew, as the kernels and as the loops take it.
    const Tensor starts = !reset        ? Tensor()
                          : x.is_cuda() ? reset->contiguous()
                                        : starts_of(*reset, taps.size(0));
    const Tensor before = input_before.contiguous();
    context->save_for_backward({x, taps, before, starts, bias.value_or(Tensor())});
    context->saved_data["place"] = place_of_gradient(input);
    const ConvolutionInputs inputs{x, taps, before, starts, bias.value_or(Tensor())};
    if (!x.is_cuda()) return inputs.forward_loops();
    const Tensor y = torch::empty(x.sizes(), x.options());
    convolution_forward_cuda(x, taps, before, starts, inputs.bias, y);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &taps = saved[1], &before = saved[2], &starts = saved[3];
    const Tensor& bias = saved[4];
    const Tensor dy = with_contiguous_channels(gradients[0]);
    const Tensor dx = empty_gradient(x, context->saved_data["place"]);
    const Tensor dbefore = torch::empty(before.sizes(), before.options());
    const auto [dtaps, dbias] =
        x.is_cuda()
            ? convolution_backward_cuda(x, taps, before, starts, bias, dy, dx, dbefore)
            : ConvolutionInputs{x, taps, before, starts, bias}.backward_loops(dy, dx, dbefore);
    return {dx, dtaps, dbefore, Tensor(), dbias};
  }
};

}  // namespace

Tensor causal_convolution(const Tensor& x, const Tensor& taps, const Tensor& before,
                          const Tensor& reset, const Tensor& bias) {
  RECORD_FUNCTION("pararnn::causal_convolution", c10::ArrayRef<const c10::IValue>{});
  const auto dtype = x.scalar_type();
  const bool loops = has_loops(x, dtype);
  const bool kernels = has_kernels(x, dtype) && taps.size(0) <= kMostTaps;
  if ((loops || kernels) && x.numel() > 0) {
    const auto optional = [](const Tensor& t) {
      return t.defined() ? std::make_optional(t) : std::nullopt;
    };
    return FusedConvolution::apply(x, taps, before, optional(reset), optional(bias));
  }
  return causal_convolution_definition(x, taps, before, reset, bias);
}

Tensor causal_convolution_definition(const Tensor& x, const Tensor& taps, const Tensor& before,
                                     const Tensor& reset, const Tensor& bias) {
  const int64_t steps = x.size(1), kept = taps.size(0) - 1;
  Tensor times;  // how often each step's row has started anew
  if (reset.defined()) times = torch::constant_pad_nd(reset.cumsum(1, torch::kInt), {kept, 0}, 0);
  const Tensor padded = torch::cat({before, x}, 1);
  const Tensor weights = taps.to(arithmetic_dtype(x.scalar_type()));
  Tensor y = torch::zeros(x.sizes(), x.options().dtype(weights.scalar_type()));
  for (int64_t k = 0; k < taps.size(0); ++k) {
    Tensor earlier = padded.narrow(1, k, steps);
    if (reset.defined()) {
      const Tensor anew = times.narrow(1, k, steps) != times.narrow(1, kept, steps);
      earlier = earlier.masked_fill(anew.unsqueeze(2), 0);
    }
    y = torch::addcmul(y, earlier, weights[k]);
  }
  if (bias.defined()) y = torch::silu(y + bias.to(y.scalar_type()));
  return y.to(x.scalar_type());
}

}  // namespace pararnn::ops
