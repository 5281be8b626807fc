// Affine maps x -> matrix x + offset, and their composition. The Newton correction of a chunked
// recurrence, and the whole backward pass, are recurrences of affine maps; composition is
// associative, which is what allows to solve them by a parallel scan.
#pragma once

#include "pararnn/core/vec.hpp"

namespace pararnn {

template <class T, int S>
struct Affine {
  Mat<T, S, S> matrix;
  Vec<T, S> offset;

  PARARNN_FN Vec<T, S> operator()(const Vec<T, S>& x) const { return matrix * x + offset; }
};

template <class T, int S>
PARARNN_FN Affine<T, S> identity_map() {
  return {identity<T, S>(), {}};
}

/// First `earlier`, then `later`: compose(g, f)(x) = g(f(x)).
template <class T, int S>
PARARNN_FN Affine<T, S> compose(const Affine<T, S>& later, const Affine<T, S>& earlier) {
  return {later.matrix * earlier.matrix, later(earlier.offset)};
}

}  // namespace pararnn
