// Batch: W numbers that are computed together, one lane each, on the vectors of the instruction set
// that the file is compiled for. It is a scalar type in the engine's sense, so cells, duals and
// affine maps work on it unchanged.
//
//   Batch<float, 32>   two 512-bit registers with AVX-512, four 256-bit ones with AVX2, ...
//
// More lanes than one register holds are independent work between dependent steps: they hide the
// latency of the arithmetic. Vectors are the compiler's (g++, clang); there are no intrinsics.
//
// The exponential is 2^n e^r with |r| <= ln 2 / 2 and the Taylor series of e^r - 1, the hyperbolic
// tangent comes from the same series without cancellation, and logarithms from the series of
// artanh. The errors, in units in the last place over the arguments whose result is not subnormal,
// are the constants below; tests/engine_math_test.cpp enforces them.
#pragma once

#include <cstdint>

#include "pararnn/core/math.hpp"
#include "pararnn/core/vec.hpp"

// The same header is compiled for several instruction sets into one library; the namespace keeps
// their functions apart.
#if defined(__AVX512F__)
#define PARARNN_INSTRUCTION_SET avx512
#define PARARNN_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define PARARNN_INSTRUCTION_SET avx2
#define PARARNN_VECTOR_BYTES 32
#else
#define PARARNN_INSTRUCTION_SET baseline
#define PARARNN_VECTOR_BYTES 16
#endif

namespace pararnn::cpu {
inline namespace PARARNN_INSTRUCTION_SET {

inline constexpr double kExpUlp = 2, kLogUlp = 3, kLog1pUlp = 3, kTanhUlp = 4, kSigmoidUlp = 4;

template <class T>
inline constexpr int kNativeLanes = PARARNN_VECTOR_BYTES / sizeof(T);

template <int Bytes>
struct IntegerOfSize;
template <>
struct IntegerOfSize<4> {
  using type = std::int32_t;
};
template <>
struct IntegerOfSize<8> {
  using type = std::int64_t;
};

/// W lanes of T; a mask is a batch of integers, all bits set for true.
template <class T, int W>
struct Batch {
  static_assert(W % kNativeLanes<T> == 0, "a batch fills whole registers");
  static constexpr int kLanes = W;
  static constexpr int kRegisters = W / kNativeLanes<T>;
  using Scalar = T;
  using Integer = Batch<typename IntegerOfSize<sizeof(T)>::type, W>;
  typedef T Register __attribute__((vector_size(PARARNN_VECTOR_BYTES)));

  Register registers[kRegisters];

  Batch() = default;
  PARARNN_FN Batch(T value) : registers{} {
    static_for<kRegisters>([&](auto r) PARARNN_LAMBDA { registers[r] = value - Register{}; });
  }

  PARARNN_FN static Batch load(const T* from) {
    Batch result;
    __builtin_memcpy(&result.registers, from, sizeof(result));
    return result;
  }
  PARARNN_FN void store(T* to) const { __builtin_memcpy(to, &registers, sizeof(*this)); }
};

/// f applied register by register.
template <class Result, class F>
PARARNN_FN Result by_register(F&& f) {
  Result result;
  static_for<Result::kRegisters>([&](auto r) PARARNN_LAMBDA { result.registers[r] = f(r); });
  return result;
}

#define PARARNN_BATCH_OPERATOR(op)                                                 \
  template <class T, int W>                                                        \
  PARARNN_FN Batch<T, W> operator op(const Batch<T, W>& a, const Batch<T, W>& b) { \
    return by_register<Batch<T, W>>(                                               \
        [&](auto r) PARARNN_LAMBDA { return a.registers[r] op b.registers[r]; });  \
  }
PARARNN_BATCH_OPERATOR(+)
PARARNN_BATCH_OPERATOR(-)
PARARNN_BATCH_OPERATOR(*)
PARARNN_BATCH_OPERATOR(/)
PARARNN_BATCH_OPERATOR(&)
PARARNN_BATCH_OPERATOR(|)
#undef PARARNN_BATCH_OPERATOR

template <class T, int W>
PARARNN_FN Batch<T, W> operator-(const Batch<T, W>& a) {
  return by_register<Batch<T, W>>([&](auto r) PARARNN_LAMBDA { return -a.registers[r]; });
}

template <int Bits, class T, int W>
PARARNN_FN Batch<T, W> shift_left(const Batch<T, W>& a) {
  return by_register<Batch<T, W>>([&](auto r) PARARNN_LAMBDA { return a.registers[r] << Bits; });
}

template <int Bits, class T, int W>
PARARNN_FN Batch<T, W> shift_right(const Batch<T, W>& a) {
  return by_register<Batch<T, W>>([&](auto r) PARARNN_LAMBDA { return a.registers[r] >> Bits; });
}

/// The same bits as another type of the same size.
template <class To, class T, int W>
PARARNN_FN To bit_cast(const Batch<T, W>& a) {
  return by_register<To>([&](auto r)
                             PARARNN_LAMBDA { return (typename To::Register)a.registers[r]; });
}

template <class T, int W>
PARARNN_FN typename Batch<T, W>::Integer less(const Batch<T, W>& a, const Batch<T, W>& b) {
  return by_register<typename Batch<T, W>::Integer>(
      [&](auto r) PARARNN_LAMBDA { return a.registers[r] < b.registers[r]; });
}

template <class T, int W>
PARARNN_FN typename Batch<T, W>::Integer is_nan(const Batch<T, W>& a) {
  return by_register<typename Batch<T, W>::Integer>(
      [&](auto r) PARARNN_LAMBDA { return a.registers[r] != a.registers[r]; });
}

template <class T, int W>
PARARNN_FN Batch<T, W> select(const typename Batch<T, W>::Integer& mask, const Batch<T, W>& a,
                              const Batch<T, W>& b) {
  return by_register<Batch<T, W>>(
      [&](auto r) PARARNN_LAMBDA { return mask.registers[r] ? a.registers[r] : b.registers[r]; });
}

template <class T, int W>
PARARNN_FN Batch<T, W> abs(const Batch<T, W>& a) {
  using I = typename Batch<T, W>::Integer;
  constexpr typename I::Scalar kAllButSign = ~(typename I::Scalar(1) << (8 * sizeof(T) - 1));
  return bit_cast<Batch<T, W>>(bit_cast<I>(a) & I(kAllButSign));
}

template <class T, int W>
PARARNN_FN Batch<T, W> sqrt(const Batch<T, W>& a) {
  return by_register<Batch<T, W>>([&](auto r) PARARNN_LAMBDA {
    typename Batch<T, W>::Register root = a.registers[r];
    for (int i = 0; i < kNativeLanes<T>; ++i) root[i] = pararnn::sqrt(root[i]);
    return root;
  });
}

/// The constants of a floating-point format that the functions below need.
template <class T>
struct Format;
template <>
struct Format<float> {
  static constexpr int kMantissaBits = 23, kExponentBias = 127;
  static constexpr int kExpTerms = 7, kArtanhTerms = 7;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kExpMin = -104.0f, kExpMax = 89.0f, kTanhMax = 10.0f;
  static constexpr float kSmallestNormal = 0x1p-126f;
  static constexpr std::int32_t kSqrtHalfBits = 0x3f3504f3, kInfinityBits = 0x7f800000;
};
template <>
struct Format<double> {
  static constexpr int kMantissaBits = 52, kExponentBias = 1023;
  static constexpr int kExpTerms = 13, kArtanhTerms = 16;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 0x1.62e42fefap-1, kLn2Low = 0x1.cf79abc9e3b398p-40;
  static constexpr double kExpMin = -746.0, kExpMax = 710.0, kTanhMax = 20.0;
  static constexpr double kSmallestNormal = 0x1p-1022;
  static constexpr std::int64_t kSqrtHalfBits = 0x3fe6a09e667f3bcd,
                                kInfinityBits = 0x7ff0000000000000;
};

/// 2^n for integers n whose power is a normal number.
template <class T, int W>
PARARNN_FN Batch<T, W> power_of_two(const typename Batch<T, W>::Integer& n) {
  using I = typename Batch<T, W>::Integer;
  using F = Format<T>;
  return bit_cast<Batch<T, W>>(shift_left<F::kMantissaBits>(n + I(F::kExponentBias)));
}

/// Coefficients [First, First + Count) of a polynomial at x, `powers` being x, x^2, x^4, ...
template <int First, int Count, class T, int W, int N>
PARARNN_FN Batch<T, W> polynomial_part(const Vec<T, N>& coefficients, const Batch<T, W>* powers) {
  if constexpr (Count == 1) {
    return Batch<T, W>(coefficients[First]);
  } else {
    constexpr int kLevel = 31 - __builtin_clz(Count - 1), kLow = 1 << kLevel;
    return polynomial_part<First, kLow>(coefficients, powers) +
           polynomial_part<First + kLow, Count - kLow>(coefficients, powers) * powers[kLevel];
  }
}

/// sum_k coefficients[k] x^k, of up to 16 terms, by Estrin's scheme: the logarithm of the terms in
/// dependent operations, which a recurrence waits for.
template <class T, int W, int N>
PARARNN_FN Batch<T, W> polynomial(const Vec<T, N>& coefficients, const Batch<T, W>& x) {
  static_assert(N <= 16);
  Batch<T, W> powers[4] = {x, x * x, x, x};
  powers[2] = powers[1] * powers[1];
  powers[3] = powers[2] * powers[2];
  return polynomial_part<0, N>(coefficients, powers);
}

/// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r - 1.
template <class T, int W>
struct ReducedExp {
  typename Batch<T, W>::Integer n;
  Batch<T, W> expm1;
};

template <class T, int W>
PARARNN_FN ReducedExp<T, W> reduce_exp(const Batch<T, W>& x) {
  using B = Batch<T, W>;
  using I = typename B::Integer;
  using F = Format<T>;
  const B shifted = x * B(T(1.44269504088896340736)) + B(F::kRound);
  const I n = bit_cast<I>(shifted) - bit_cast<I>(B(F::kRound));
  const B multiple = shifted - B(F::kRound);
  const B r = (x - multiple * B(F::kLn2High)) - multiple * B(F::kLn2Low);
  constexpr auto kReciprocalFactorials = [] {
    Vec<T, F::kExpTerms> c{};
    double factorial = 1;
    for (int k = 0; k < F::kExpTerms; ++k) c[k] = T(1 / (factorial *= k + 1));
    return c;
  }();
  return {n, polynomial(kReciprocalFactorials, r) * r};
}

/// x limited to [low, high]; NaN stays NaN.
template <class T, int W>
PARARNN_FN Batch<T, W> clamp(const Batch<T, W>& x, T low, T high) {
  using B = Batch<T, W>;
  const B bounded = select(less(x, B(low)), B(low), x);
  return select(less(B(high), bounded), B(high), bounded);
}

template <class T, int W>
PARARNN_FN Batch<T, W> exp(const Batch<T, W>& x) {
  using B = Batch<T, W>;
  using F = Format<T>;
  const auto [n, expm1] = reduce_exp(clamp(x, F::kExpMin, F::kExpMax));
  // In two factors, so that results up to the largest number and subnormal ones come out right.
  const auto half = shift_right<1>(n);
  return ((B(1) + expm1) * power_of_two<T, W>(half)) * power_of_two<T, W>(n - half);
}

template <class T, int W>
PARARNN_FN Batch<T, W> tanh(const Batch<T, W>& x) {
  using B = Batch<T, W>;
  using F = Format<T>;
  const B bounded = clamp(x, -F::kTanhMax, F::kTanhMax);
  const auto [n, expm1] = reduce_exp(bounded + bounded);
  const B scale = power_of_two<T, W>(n);
  const B e = expm1 * scale + (scale - B(1));  // e^{2x} - 1
  return e / (e + B(2));
}

/// artanh(s) for |s| <= 1/3, by its series.
template <class T, int W>
PARARNN_FN Batch<T, W> artanh_third(const Batch<T, W>& s) {
  using B = Batch<T, W>;
  constexpr int kTerms = Format<T>::kArtanhTerms;
  const B square = s * s;
  B sum(T(1.0 / (2 * kTerms - 1)));
  static_for<kTerms - 1>(
      [&](auto k) PARARNN_LAMBDA { sum = sum * square + B(T(1.0 / (2 * (kTerms - 2 - k) + 1))); });
  return s * sum;
}

/// log(1 + x) for x in [0, 1].
template <class T, int W>
PARARNN_FN Batch<T, W> log1p_unit(const Batch<T, W>& x) {
  const Batch<T, W> half = artanh_third(x / (x + Batch<T, W>(2)));
  return half + half;
}

template <class T, int W>
PARARNN_FN Batch<T, W> log(const Batch<T, W>& x) {
  using B = Batch<T, W>;
  using I = typename B::Integer;
  using F = Format<T>;
  const auto subnormal = less(x, B(F::kSmallestNormal));
  const B scaled = select(subnormal, x * B(T(std::int64_t(1) << (F::kMantissaBits + 1))), x);
  const I bits = bit_cast<I>(abs(scaled));  // negative arguments give NaN below
  // x = 2^n m with m in [sqrt(1/2), sqrt(2))
  const I n = shift_right<F::kMantissaBits>(bits - I(F::kSqrtHalfBits));
  const B m = bit_cast<B>(bits - shift_left<F::kMantissaBits>(n));
  const B integer = bit_cast<B>(n + bit_cast<I>(B(F::kRound))) - B(F::kRound);
  const B exponent = select(subnormal, integer - B(T(F::kMantissaBits + 1)), integer);
  const B half = artanh_third((m - B(1)) / (m + B(1)));
  const B result = exponent * B(F::kLn2High) + ((half + half) + exponent * B(F::kLn2Low));
  const B infinity = bit_cast<B>(I(F::kInfinityBits));
  const B of_zero = select(less(x, B(0)), infinity - infinity, -infinity);
  const B at_edges = select(less(B(0), x), result, select(is_nan(x), x, of_zero));
  return select(less(x, infinity), at_edges, x);
}

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
