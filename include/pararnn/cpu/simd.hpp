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
// artanh. Sine and cosine are Taylor series of x - n pi/2 (Cody and Waite, "Software Manual for the
// Elementary Functions", 1980), and hold for any argument. The errors, in units in the last place
// over the arguments whose result is not subnormal, are the constants below;
// tests/engine_math_test.cpp enforces them.
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

inline constexpr double kExpUlp = 2, kLogUlp = 3, kLog1pUlp = 3, kTanhUlp = 4, kSigmoidUlp = 4,
                        kSinUlp = 3, kCosUlp = 3, kErfUlp = 3;

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

/// f applied register by register.
template <class Result, class F>
PARARNN_FN Result by_register(F&& f) {
  Result result;
  static_for<Result::kRegisters>([&](auto r) PARARNN_LAMBDA { result.registers[r] = f(r); });
  return result;
}

/// W lanes of T; a mask is a batch of integers, all bits set for true.
template <class T, int W>
struct Batch : Scalar<Batch<T, W>> {
  static_assert(W % kNativeLanes<T> == 0, "a batch fills whole registers");
  static constexpr int kLanes = W;
  static constexpr int kRegisters = W / kNativeLanes<T>;
  using Scalar = T;
  using Integer = Batch<typename IntegerOfSize<sizeof(T)>::type, W>;
  using MaskBits = Integer;
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

#define PARARNN_BATCH_OPERATOR(op)                                                              \
  friend PARARNN_FN Batch operator op(const Batch& a, const Batch& b) {                         \
    return by_register<Batch>([&](auto r)                                                       \
                                  PARARNN_LAMBDA { return a.registers[r] op b.registers[r]; }); \
  }
  PARARNN_BATCH_OPERATOR(+)
  PARARNN_BATCH_OPERATOR(-)
  PARARNN_BATCH_OPERATOR(*)
  PARARNN_BATCH_OPERATOR(/)
  PARARNN_BATCH_OPERATOR(&)
  PARARNN_BATCH_OPERATOR(|)
  PARARNN_BATCH_OPERATOR(^)
#undef PARARNN_BATCH_OPERATOR
  friend PARARNN_FN Batch operator-(const Batch& a) {
    return by_register<Batch>([&](auto r) PARARNN_LAMBDA { return -a.registers[r]; });
  }
  friend PARARNN_FN Batch operator!(const Batch& mask) {
    return by_register<Batch>([&](auto r) PARARNN_LAMBDA { return ~mask.registers[r]; });
  }

#define PARARNN_BATCH_COMPARISON(name, op)                                         \
  friend PARARNN_FN Mask<Batch> name(const Batch& a, const Batch& b) {             \
    return Mask<Batch>(by_register<Integer>(                                       \
        [&](auto r) PARARNN_LAMBDA { return a.registers[r] op b.registers[r]; })); \
  }
  PARARNN_BATCH_COMPARISON(less, <)
  PARARNN_BATCH_COMPARISON(less_equal, <=)
#undef PARARNN_BATCH_COMPARISON
  friend PARARNN_FN Mask<Batch> is_nan(const Batch& a) {
    return Mask<Batch>(by_register<Integer>(
        [&](auto r) PARARNN_LAMBDA { return a.registers[r] != a.registers[r]; }));
  }
  friend PARARNN_FN Batch select(const Integer& mask, const Batch& a, const Batch& b) {
    return by_register<Batch>(
        [&](auto r) PARARNN_LAMBDA { return mask.registers[r] ? a.registers[r] : b.registers[r]; });
  }
};

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

/// Whether a mask is true in every lane.
template <class B>
PARARNN_FN bool all_lanes(const Mask<B>& mask) {
  using I = typename B::Integer;
  const I bits = mask.bits;
  typename I::Scalar all = -1;
  static_for<I::kRegisters>([&](auto r) PARARNN_LAMBDA {
    for (int i = 0; i < kNativeLanes<typename B::Scalar>; ++i) all &= bits.registers[r][i];
  });
  return all != 0;
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
  // erf(x) / x - 1 in x^2 for |x| <= 1, and -log(erfc(x)) - x^2 in t, from -1 at x = 1 to 1 at
  // kErfMax: the polynomials of least relative error in erf.
  static constexpr Vec<float, 7> kErfNear = {0.128379167f,   -0.376126258f,  0.112835851f,
                                             -0.0268538116f, 0.00518832698f, -0.000801018746f,
                                             7.85384099e-5f};
  static constexpr Vec<float, 9> kErfFar = {1.5568153f,       0.529021012f,    -0.12624245f,
                                            0.0366326811f,    -0.0109702805f,  0.00325532354f,
                                            -0.000732146696f, 0.000350456543f, -5.44036768e-6f};
  static constexpr float kErfMax = 4;
  static constexpr int kSineTerms = 5;
  static constexpr float kTwoToMantissa = 0x1p23f;
  // pi/2 in parts of 15 bits, so that n times one is exact for |n| <= 512.
  static constexpr Vec<float, 4> kHalfPi = {0x1.921cp+0f, 0x1.daap-15f, 0x1.10b4p-30f,
                                            0x1.84698ap-48f};
  static constexpr float kReducedMax = 800;
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
  static constexpr Vec<double, 13> kErfNear = {
      0.12837916709551257,    -0.37612638903183748,   0.11283791670954857,
      -0.026866170645072893,  0.0052239776247808439,  -0.00085483269787409025,
      0.00012055331036852485, -1.4925593505766553e-5, 1.6460972799168282e-6,
      -1.6350025035490608e-7, 1.4657878600139998e-8,  -1.1365661233537546e-9,
      5.9452538839606704e-11};
  static constexpr Vec<double, 18> kErfFar = {
      1.8624374021412607,     0.66524897064959393,     -0.20779340958133313,
      0.081650925246215061,   -0.034128167677674378,   0.014385635248630135,
      -0.0059531630306481653, 0.0023602460404284663,   -0.00095423128438057477,
      0.0001982437630302295,  -0.00010090388734968962, 0.00042468920085457539,
      0.0010251443898243551,  0.0013845480888113438,   0.0011931048104168917,
      0.00064469202971324899, 0.0002063362605278882,   2.8651940118588748e-5};
  static constexpr double kErfMax = 6;
  static constexpr int kSineTerms = 9;
  static constexpr double kTwoToMantissa = 0x1p52;
  // pi/2 in parts of 33 bits, so that n times one is exact for |n| <= 2^20.
  static constexpr Vec<double, 4> kHalfPi = {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2ep-69,
                                             0x1.b839a252049c1p-104};
  static constexpr double kReducedMax = 1.6e6;
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

/// sum_k coefficients[k] x^k, of up to 32 terms, by Estrin's scheme: the logarithm of the terms in
/// dependent operations, which a recurrence waits for.
template <class T, int W, int N>
PARARNN_FN Batch<T, W> polynomial(const Vec<T, N>& coefficients, const Batch<T, W>& x) {
  static_assert(N <= 32);
  Batch<T, W> powers[5] = {x, x, x, x, x};
  static_for<4>([&](auto k) PARARNN_LAMBDA { powers[k + 1] = powers[k] * powers[k]; });
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

/// The magnitude of `x` with the sign of `sign`; x >= 0.
template <class T, int W>
PARARNN_FN Batch<T, W> with_sign_of(const Batch<T, W>& sign, const Batch<T, W>& x) {
  using I = typename Batch<T, W>::Integer;
  constexpr typename I::Scalar kSign = typename I::Scalar(1) << (8 * sizeof(T) - 1);
  return bit_cast<Batch<T, W>>(bit_cast<I>(x) | (bit_cast<I>(sign) & I(kSign)));
}

template <class T, int W>
PARARNN_FN Batch<T, W> floor(const Batch<T, W>& x) {
  using B = Batch<T, W>;
  const B magic = with_sign_of(x, B(Format<T>::kTwoToMantissa));
  const B nearest = (x + magic) - magic;
  const B below = select(less(x, nearest), nearest - B(1), nearest);
  const B integer = with_sign_of(x, abs(below));  // -0 stays
  return select(less(abs(x), B(Format<T>::kTwoToMantissa)), integer, x);
}

template <class T, int W>
PARARNN_FN Batch<T, W> erf(const Batch<T, W>& x) {
  using B = Batch<T, W>;
  using F = Format<T>;
  const B size = clamp(abs(x), T(0), F::kErfMax), squared = size * size;
  const B near = size + size * polynomial(F::kErfNear, squared);
  constexpr T kWidth = F::kErfMax - 1;
  const B t = (size + size - B(1 + F::kErfMax)) * B(1 / kWidth);
  const B far = B(1) - exp(-(squared + polynomial(F::kErfFar, t)));
  return with_sign_of(x, select(less(size, B(1)), near, far));
}

/// sin(x + kQuarters pi/2).
template <int kQuarters, class T, int W>
PARARNN_FN Batch<T, W> shifted_sine(const Batch<T, W>& x) {
  using B = Batch<T, W>;
  using I = typename B::Integer;
  using F = Format<T>;
  // x = n pi/2 + r with |r| <= pi/4
  const B shifted = x * B(T(0.63661977236758134308)) + B(F::kRound);
  const I n = bit_cast<I>(shifted) - bit_cast<I>(B(F::kRound - T(kQuarters)));
  const B multiple = shifted - B(F::kRound);
  B r = x;
  static_for<4>([&](auto i) PARARNN_LAMBDA { r = r - multiple * B(F::kHalfPi[i]); });
  constexpr auto kCoefficients = [](int first) {
    Vec<T, F::kSineTerms - 1> c{};  // of r^first, r^(first + 2), ...
    double factor = first == 2 ? 0.5 : 1.0 / 6;
    for (int k = 0; k < F::kSineTerms - 1; ++k) {
      c[k] = T(k % 2 == 0 ? -factor : factor);
      factor /= (first + 2 * k + 1) * (first + 2 * k + 2);
    }
    return c;
  };
  constexpr auto kSine = kCoefficients(3), kCosine = kCoefficients(2);
  const B square = r * r;
  const B sine = r + r * (square * polynomial(kSine, square));
  const B cosine = B(1) + square * polynomial(kCosine, square);
  const I odd = I(0) - (n & I(1));
  const B chosen = select(odd, cosine, sine);
  constexpr int kToSign = 8 * sizeof(T) - 2;
  const B result = bit_cast<B>(bit_cast<I>(chosen) ^ shift_left<kToSign>(n & I(2)));
  // Larger arguments take more digits of pi than there are here: the C library has them.
  if (all_lanes(abs(x) <= F::kReducedMax)) return result;
  T lanes[W] = {}, arguments[W] = {};
  result.store(lanes), x.store(arguments);
  for (int i = 0; i < W; ++i) {
    if (pararnn::abs(arguments[i]) <= F::kReducedMax) continue;
    lanes[i] = kQuarters == 0 ? pararnn::sin(arguments[i]) : pararnn::cos(arguments[i]);
  }
  return B::load(lanes);
}

template <class T, int W>
PARARNN_FN Batch<T, W> sin(const Batch<T, W>& x) {
  return shifted_sine<0>(x);
}

template <class T, int W>
PARARNN_FN Batch<T, W> cos(const Batch<T, W>& x) {
  return shifted_sine<1>(x);
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
