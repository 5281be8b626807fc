// What the engine's headers need of the compiler that reads them: g++ or clang on the CPU, NVRTC on
// the GPU. No header of the C++ library is included on the path that NVRTC compiles.
#pragma once

#if defined(__CUDACC__)
#define PARARNN_FN __host__ __device__ __forceinline__ constexpr
#define PARARNN_LAMBDA
#else
/// Marks every function of the engine. Inlining is required, not hoped for: the CPU kernels are
/// compiled once per instruction set, and an out-of-line copy could be run on the wrong machine.
#define PARARNN_FN __attribute__((always_inline)) inline constexpr
/// The same for a lambda; stands behind its parameter list.
#define PARARNN_LAMBDA __attribute__((always_inline))
#endif

namespace pararnn {

/// Whether two types are one: std::is_same_v.
template <class A, class B>
inline constexpr bool kSame = false;
template <class A>
inline constexpr bool kSame<A, A> = true;

/// A number that a generic lambda can use as a constant.
template <int I>
struct Index {
  static constexpr int value = I;
  constexpr operator int() const { return I; }
};

/// The numbers 0 ... N-1: std::make_integer_sequence.
template <int... I>
struct Sequence {};
template <int N, int... I>
struct SequenceOf : SequenceOf<N - 1, N - 1, I...> {};
template <int... I>
struct SequenceOf<0, I...> {
  using type = Sequence<I...>;
};

template <int... I, class F>
PARARNN_FN void call_with_each(Sequence<I...>, F& f) {
  (f(Index<I>{}), ...);
}

/// Calls f(Index<0>{}), ..., f(Index<N-1>{}): a loop that is unrolled in the source, so that arrays
/// indexed by it live in registers.
template <int N, class F>
PARARNN_FN void static_for(F&& f) {
  call_with_each(typename SequenceOf<(N > 0 ? N : 0)>::type{}, f);
}

}  // namespace pararnn
