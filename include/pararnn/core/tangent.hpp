// The tangent of a cell, as a cell: its scan is the derivative of the cell's scan along a direction
// of inputs, parameters and first state (forward mode; Griewank and Walther, "Evaluating
// Derivatives", chapter 3), and the derivatives of its scan are second derivatives.
#pragma once

#include "pararnn/core/cell.hpp"

namespace pararnn {

/// State: h' and then h, so that the output is y'. Inputs u and then u', parameters w and then w',
/// where ' is the derivative along the direction. C has at most 32 arguments.
template <class C>
struct Tangent {
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  static constexpr int kState = 2 * S, kInputs = 2 * U, kParams = 2 * P;

  template <class T>
  PARARNN_FN static Vec<T, kState> step(const Vec<T, kState>& h, const Vec<T, kInputs>& u,
                                        const Vec<T, kParams>& w) {
    using D = Dual<T, 1>;
    const auto dual = [](const T& value, const T& tangent) PARARNN_LAMBDA {
      D result(value);
      result.tangent[0] = tangent;
      result.support = 1;
      return result;
    };
    Vec<D, S> dual_h{};
    Vec<D, U> dual_u{};
    Vec<D, P> dual_w{};
    static_for<S>([&](auto i) PARARNN_LAMBDA { dual_h[i] = dual(h[S + i], h[i]); });
    static_for<U>([&](auto i) PARARNN_LAMBDA { dual_u[i] = dual(u[i], u[U + i]); });
    static_for<P>([&](auto i) PARARNN_LAMBDA { dual_w[i] = dual(w[i], w[P + i]); });
    const Vec<D, S> out = C::step(dual_h, dual_u, dual_w);
    Vec<T, kState> next{};
    static_for<S>([&](auto s) PARARNN_LAMBDA {
      next[s] = out[s].tangent[0];
      next[S + s] = out[s].value;
    });
    return next;
  }
};

}  // namespace pararnn
