// What the fused elementwise functions of this layer (norm, convolution, SwiGLU, residual) share.
// Each is a loop over the rows of tensors whose last dimension is the channels: loaded once,
// computed in the arithmetic's dtype, stored once, where a chain of tensor operations would pass
// over memory for every one of them. The loops are plain C++ that the compiler vectorises, once for
// each instruction set.
//
// A tensor that the loops do not take (on a GPU, or fp16) goes through LibTorch's operations
// instead, which every such function states as its definition.
#pragma once

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "base/error.hpp"

// A function so marked is compiled for AVX-512, AVX2 and the baseline, and chosen when the program
// starts. (clang knows no such clones of templates, and compiles the baseline.)
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define PARARNN_VECTORISED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PARARNN_VECTORISED
#endif

namespace pararnn::ops {

/// The dtype of the arithmetic on values stored as T: fp32, but fp64 for fp64.
template <class T>
using Arithmetic = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// The same as a dtype.
inline torch::ScalarType arithmetic_dtype(torch::ScalarType stored) {
  return stored == torch::kDouble ? torch::kDouble : torch::kFloat;
}

/// How the loops see bf16: as its bits, which the compiler vectorises as it does integers.
using Bfloat16Bits = uint16_t;

/// A stored value in the arithmetic's dtype.
[[gnu::always_inline]] inline float widen(float x) { return x; }
[[gnu::always_inline]] inline double widen(double x) { return x; }
[[gnu::always_inline]] inline float widen(Bfloat16Bits x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
}

/// A value rounded to what is stored.
template <class T>
[[gnu::always_inline]] inline T narrow(Arithmetic<T> x) {
  if constexpr (std::is_same_v<T, Bfloat16Bits>) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;  // ties to even
    return static_cast<Bfloat16Bits>(x == x ? rounded : 0x7FC0);
  } else {
    return x;
  }
}

/// A tensor seen as rows of `width` contiguous channels, `stride` apart.
template <class T>
struct Rows {
  T* data;
  int64_t count, width, stride;
  T* operator[](int64_t row) const { return data + row * stride; }
};

/// The tensor itself where its leading dimensions fold into rows, as those of one half of a
/// contiguous tensor do; otherwise a copy for which they do.
inline torch::Tensor foldable(const torch::Tensor& x) {
  if (x.stride(-1) != 1 && x.size(-1) > 1) return x.contiguous();
  return x.flatten(0, -2);
}

/// The rows of a tensor that foldable() returned, or of a contiguous one.
template <class T>
Rows<T> rows(const torch::Tensor& x) {
  const int64_t width = x.size(-1);
  const int64_t count = width ? x.numel() / width : 0;
  const int64_t stride = x.dim() > 1 ? x.stride(-2) : width;
  return {static_cast<T*>(x.data_ptr()), count, width, stride};
}

/// Work is cut into blocks of so many rows, whatever the number of threads, and sums over rows are
/// added up block by block in order: results do not depend on the threads.
constexpr int64_t kRowsPerBlock = 128;

/// The number of blocks in `count` rows.
inline int64_t block_count(int64_t count) { return (count + kRowsPerBlock - 1) / kRowsPerBlock; }

/// Runs work(block, begin, end) over the blocks of `count` rows on all threads.
template <class Work>
void for_each_block(int64_t count, const Work& work) {
  at::parallel_for(0, block_count(count), 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      work(block, block * kRowsPerBlock, std::min(count, (block + 1) * kRowsPerBlock));
    }
  });
}

/// Whether the loops take values of `dtype` on the device of `x`.
inline bool has_loops(const torch::Tensor& x, torch::ScalarType dtype) {
  return x.device().is_cpu() &&
         (dtype == torch::kFloat || dtype == torch::kDouble || dtype == torch::kBFloat16);
}

/// Calls f(T{}) with the C++ type of a dtype for which has_loops().
template <class F>
void with_type(torch::ScalarType dtype, F&& f) {
  if (dtype == torch::kDouble) {
    f(double{});
  } else if (dtype == torch::kBFloat16) {
    f(Bfloat16Bits{});
  } else {
    f(float{});
  }
}

/// The same for a residual stream x and a branch in `dtype`: that of the stream, or bf16 beside
/// fp32.
inline bool has_loops_with(const torch::Tensor& x, torch::ScalarType dtype) {
  const torch::ScalarType stream = x.scalar_type();
  return has_loops(x, stream) &&
         (dtype == stream || (stream == torch::kFloat && dtype == torch::kBFloat16));
}

/// Calls f(X{}, Y{}) with the C++ types of a stream and a branch for which has_loops_with().
template <class F>
void with_types(torch::ScalarType stream, torch::ScalarType branch, F&& f) {
  with_type(stream, [&](auto x) {
    if (stream == torch::kFloat && branch == torch::kBFloat16) {
      f(float{}, Bfloat16Bits{});
    } else {
      f(x, x);
    }
  });
}

/// Refuses to be differentiated twice, where a silent zero would be the alternative.
inline void refuse_second_derivative() {
  require(!torch::GradMode::is_enabled(),
          "this module has first derivatives only: call backward without create_graph");
}

/// e^x without a branch, relative error below 2e-7 and never infinite: x is held within ±87 (and
/// NaN taken for ±87).
[[gnu::always_inline]] inline float exponential(float x) {
  // Held by comparing the bits of |x| as integers: a comparison of floats may raise an exception,
  // which keeps a loop from being vectorised for AVX2.
  const uint32_t bits = std::bit_cast<uint32_t>(x), limit = std::bit_cast<uint32_t>(87.0f);
  const uint32_t size = bits & 0x7FFFFFFF, sign = bits & 0x80000000;
  x = std::bit_cast<float>((size < limit ? size : limit) | sign);
  // x = n ln 2 + r, |r| <= ln(2)/2, with ln 2 in two parts, the first of which n multiplies
  // exactly.
  const float n = __builtin_rintf(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  // The Taylor series of e^r to degree 7; what follows is below 6e-9.
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}
[[gnu::always_inline]] inline double exponential(double x) { return std::exp(x); }

/// 1 / (1 + e^-x). Takes NaN for a number: its callers multiply by x as well.
template <class T>
[[gnu::always_inline]] inline T sigmoid(T x) {
  return 1 / (1 + exponential(-x));
}

}  // namespace pararnn::ops
