// Compiled with relaxed arithmetic, by which the compiler may call the vector functions of the C
// library, and once for each instruction set; see CMakeLists.txt. Includes no LibTorch: the
// precompiled header has other flags.
#include "bench/vectorized_loop.hpp"

#include <cmath>
#include <cstdint>

#include "cells/cell_registry.hpp"
#include "pararnn/cells.hpp"
#include "pararnn/reference.hpp"

namespace pararnn::bench {
namespace {

/// As load_channel, unrolled in the source: a loop inside would keep the compiler from vectorising.
template <int N>
PARARNN_FN Vec<float, N> load(const float* base, std::int64_t channels) {
  Vec<float, N> v{};
  static_for<N>([&](auto i) PARARNN_LAMBDA { v[i] = base[i * channels]; });
  return v;
}

template <Cell C>
__attribute__((always_inline)) inline void run(const Shape& shape, const float* u, const float* w,
                                               float* state, float* y) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const auto [batch, steps, channels] = shape;
  for (std::int64_t b = 0; b < batch; ++b) {
    float* h = state + b * S * channels;
    for (std::int64_t t = 0; t < steps; ++t) {
      const float* input = u + (b * steps + t) * U * channels;
      float* output = y + (b * steps + t) * channels;
#pragma GCC ivdep
      for (std::int64_t d = 0; d < channels; ++d) {
        const Vec<float, S> next = next_state<C>(
            load<S>(h + d, channels), load<U>(input + d, channels), load<P>(w + d, channels));
        static_for<S>([&](auto s) PARARNN_LAMBDA { h[s * channels + d] = next[s]; });
        output[d] = next[0];
      }
    }
  }
}

#define PARARNN_LOOP(name, Type)                                                                 \
  __attribute__((target_clones("arch=skylake-avx512", "arch=haswell",                            \
                               "default"))) void name##_loop(const Shape& shape, const float* u, \
                                                             const float* w, float* state,       \
                                                             float* y) {                         \
    run<Type>(shape, u, w, state, y);                                                            \
  }
PARARNN_CELLS(PARARNN_LOOP)
#undef PARARNN_LOOP

}  // namespace

VectorizedLoop find_vectorized_loop(const std::string& cell) {
  const std::string& digest = find_cell(cell).digest;
#define PARARNN_FIND(name, Type) \
  if (digest == find_cell(#name).digest) return &name##_loop;
  PARARNN_CELLS(PARARNN_FIND)
#undef PARARNN_FIND
  return nullptr;
}

}  // namespace pararnn::bench
