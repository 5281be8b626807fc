// What verification measures: how far apart the numbers on the two sides of a boundary between
// chunks are, on every device and in both directions. What decides and what is reported is one
// number, comparable with the tolerance.
#pragma once

#include "pararnn/core/math.hpp"

namespace pararnn {

/// apart / size. Kernels compare without the division, which takes many instructions.
template <class T>
struct Mismatch {
  T apart;  // |a - b|; 0 for two equal numbers, two infinities of one sign, or two NaN
  T size;   // what it is relative to

  /// Whether the mismatch is none, or below the tolerance. NaN, infinity against any other number,
  /// and anything but 0 relative to 0 are not.
  PARARNN_FN bool passes(double tolerance) const {
    return apart == T(0) || apart < T(tolerance) * size;
  }
  /// For the report; not finite where no tolerance would do.
  PARARNN_FN T value() const { return apart == T(0) ? T(0) : apart / size; }
};

template <class T>
PARARNN_FN T distance(T a, T b) {
  return a == b || (is_nan(a) && is_nan(b)) ? T(0) : abs(a - b);
}

/// Of states: |a - b| / (1 + min(|a|, |b|)).
template <class T>
PARARNN_FN Mismatch<T> state_mismatch(T a, T b) {
  const T least = abs(a) < abs(b) ? abs(a) : abs(b);
  return {distance(a, b), T(1) + least};
}

/// Of adjoints, which have no scale of their own: |a - b| / max(peak, min(|a|, |b|)), `peak` being
/// the largest |lambda| in the chunk before the boundary.
template <class T>
PARARNN_FN Mismatch<T> adjoint_mismatch(T a, T b, T peak) {
  const T least = abs(a) < abs(b) ? abs(a) : abs(b);
  return {distance(a, b), peak > least ? peak : least};
}

}  // namespace pararnn
