// Dual numbers: forward-mode automatic differentiation. A Dual carries a value and its derivatives
// along N directions; arithmetic on duals applies the chain rule, so evaluating a cell's step with
// duals evaluates its Jacobian, exact to rounding. See e.g. Griewank and Walther, "Evaluating
// Derivatives", chapter 3.
//
// A cell uses each input in few places, so most tangents are zero by structure. `support` says
// which may be nonzero. It depends on the cell alone: once all is inlined it is a constant, and the
// compiler drops the arithmetic on the other directions. Nobody lists them by hand.
#pragma once

#include "pararnn/core/math.hpp"
#include "pararnn/core/vec.hpp"

namespace pararnn {

/// A set of directions: a bit for each of up to 32, or of up to 64.
template <bool more_than_32>
struct DirectionSet {
  using type = unsigned;
};
template <>
struct DirectionSet<true> {
  using type = unsigned long long;
};

template <class T, int N>
struct Dual : Scalar<Dual<T, N>> {
  static_assert(N <= 64);
  using Support = typename DirectionSet<(N > 32)>::type;
  static constexpr Support kAllDirections = ~Support(0) >> (8 * sizeof(Support) - N);
  using MaskBits = typename MaskBitsOf<T>::type;
  T value{};
  T tangent[N]{};
  Support support = 0;  // bit i: tangent[i] may be nonzero

  constexpr Dual() = default;
  /// A constant.
  PARARNN_FN Dual(const T& v) : value(v) {}
  template <Literal L>
  PARARNN_FN Dual(L v) : value(T(v)) {}

  /// The independent variable of direction i.
  PARARNN_FN static Dual variable(const T& v, int i) {
    Dual result(v);
    result.tangent[i] = T(1);
    result.support = Support(1) << i;
    return result;
  }
  PARARNN_FN bool depends_on(int i) const { return (support >> i) & Support(1); }

  friend PARARNN_FN Dual operator+(const Dual& a, const Dual& b) {
    Dual result(a.value + b.value);
    result.support = a.support | b.support;
    static_for<N>([&](auto i) PARARNN_LAMBDA {
      if (a.depends_on(i) && b.depends_on(i)) {
        result.tangent[i] = a.tangent[i] + b.tangent[i];
      } else if (a.depends_on(i)) {
        result.tangent[i] = a.tangent[i];
      } else if (b.depends_on(i)) {
        result.tangent[i] = b.tangent[i];
      }
    });
    return result;
  }

  friend PARARNN_FN Dual operator-(const Dual& a) {
    Dual result(-a.value);
    result.support = a.support;
    static_for<N>([&](auto i) PARARNN_LAMBDA {
      if (a.depends_on(i)) result.tangent[i] = -a.tangent[i];
    });
    return result;
  }

  friend PARARNN_FN Dual operator-(const Dual& a, const Dual& b) {
    Dual result(a.value - b.value);
    result.support = a.support | b.support;
    static_for<N>([&](auto i) PARARNN_LAMBDA {
      if (a.depends_on(i) && b.depends_on(i)) {
        result.tangent[i] = a.tangent[i] - b.tangent[i];
      } else if (a.depends_on(i)) {
        result.tangent[i] = a.tangent[i];
      } else if (b.depends_on(i)) {
        result.tangent[i] = -b.tangent[i];
      }
    });
    return result;
  }

  friend PARARNN_FN Dual operator*(const Dual& a, const Dual& b) {
    return chain(a, b.value, b, a.value, a.value * b.value);
  }

  friend PARARNN_FN Dual operator/(const Dual& a, const Dual& b) {
    const T reciprocal = T(1) / b.value;
    const T quotient = a.value / b.value;
    return chain(a, reciprocal, b, -quotient * reciprocal, quotient);
  }

  friend PARARNN_FN Mask<Dual> less(const Dual& a, const Dual& b) {
    return Mask<Dual>(bits_of(less(a.value, b.value)));
  }
  friend PARARNN_FN Mask<Dual> less_equal(const Dual& a, const Dual& b) {
    return Mask<Dual>(bits_of(less_equal(a.value, b.value)));
  }
  friend PARARNN_FN Mask<Dual> is_nan(const Dual& x) {
    return Mask<Dual>(bits_of(is_nan(x.value)));
  }
  friend PARARNN_FN Dual select(const MaskBits& mask, const Dual& a, const Dual& b) {
    Dual result(select(mask, a.value, b.value));
    result.support = a.support | b.support;
    static_for<N>([&](auto i) PARARNN_LAMBDA {
      if (result.depends_on(i)) result.tangent[i] = select(mask, a.tangent[i], b.tangent[i]);
    });
    return result;
  }
};

/// The dual whose value is given and whose tangents are `slope` times those of x.
template <class T, int N>
PARARNN_FN Dual<T, N> chain(const Dual<T, N>& x, const T& value, const T& slope) {
  Dual<T, N> result(value);
  result.support = x.support;
  static_for<N>([&](auto i) PARARNN_LAMBDA {
    if (x.depends_on(i)) result.tangent[i] = slope * x.tangent[i];
  });
  return result;
}

/// The dual whose value is given and whose tangents are slope_a a' + slope_b b'.
template <class T, int N>
PARARNN_FN Dual<T, N> chain(const Dual<T, N>& a, const T& slope_a, const Dual<T, N>& b,
                            const T& slope_b, const T& value) {
  Dual<T, N> result(value);
  result.support = a.support | b.support;
  static_for<N>([&](auto i) PARARNN_LAMBDA {
    if (a.depends_on(i) && b.depends_on(i)) {
      result.tangent[i] = slope_a * a.tangent[i] + slope_b * b.tangent[i];
    } else if (a.depends_on(i)) {
      result.tangent[i] = slope_a * a.tangent[i];
    } else if (b.depends_on(i)) {
      result.tangent[i] = slope_b * b.tangent[i];
    }
  });
  return result;
}

template <class T, int N>
PARARNN_FN Dual<T, N> exp(const Dual<T, N>& x) {
  const T e = exp(x.value);
  return chain(x, e, e);
}

template <class T, int N>
PARARNN_FN Dual<T, N> log(const Dual<T, N>& x) {
  return chain(x, log(x.value), T(1) / x.value);
}

template <class T, int N>
PARARNN_FN Dual<T, N> log1p_unit(const Dual<T, N>& x) {
  return chain(x, log1p_unit(x.value), T(1) / (T(1) + x.value));
}

template <class T, int N>
PARARNN_FN Dual<T, N> sqrt(const Dual<T, N>& x) {
  const T root = sqrt(x.value);
  return chain(x, root, T(0.5) / root);
}

template <class T, int N>
PARARNN_FN Dual<T, N> tanh(const Dual<T, N>& x) {
  const T t = tanh(x.value);
  return chain(x, t, T(1) - t * t);
}

template <class T, int N>
PARARNN_FN Dual<T, N> sigmoid(const Dual<T, N>& x) {
  const T s = sigmoid(x.value);
  return chain(x, s, s * (T(1) - s));
}

template <class T, int N>
PARARNN_FN Dual<T, N> softplus(const Dual<T, N>& x) {
  return chain(x, softplus(x.value), sigmoid(x.value));
}

/// The derivative at 0 is taken as 1.
template <class T, int N>
PARARNN_FN Dual<T, N> abs(const Dual<T, N>& x) {
  return chain(x, abs(x.value), select(less(x.value, T(0)), T(-1), T(1)));
}

template <class T, int N>
PARARNN_FN Dual<T, N> sin(const Dual<T, N>& x) {
  return chain(x, sin(x.value), cos(x.value));
}

template <class T, int N>
PARARNN_FN Dual<T, N> cos(const Dual<T, N>& x) {
  return chain(x, cos(x.value), -sin(x.value));
}

template <class T, int N>
PARARNN_FN Dual<T, N> erf(const Dual<T, N>& x) {
  const T slope = T(1.12837916709551257390) * exp(-(x.value * x.value));  // 2 / sqrt(pi)
  return chain(x, erf(x.value), slope);
}

/// The derivative is 0, at the jumps too.
template <class T, int N>
PARARNN_FN Dual<T, N> floor(const Dual<T, N>& x) {
  return Dual<T, N>(floor(x.value));
}

}  // namespace pararnn
