// The cell contract. A cell is a struct with its sizes and one function, templated on the scalar:
//
//   struct Leaky {
//     static constexpr int kState = 1, kInputs = 2, kParams = 1;
//     template <class T>
//     PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 1>& w)
//     {
//       const T z = sigmoid(u[0]);
//       return {(1 - z) * h[0] + z * tanh(u[1] + w[0] * h[0])};
//     }
//   };
//
// T is a scalar type of the engine, never a plain float; literals mix with it on either side.
// Everything else is derived here: the step on numbers (`next_state`), the Jacobian with respect to
// the state (`linearize`), all derivatives of a step (`differentiate`), their structure
// (`jacobian_pattern`) and vector-Jacobian products (`vjp`). Arguments are numbered state first,
// then inputs, then parameters.
#pragma once

#include "pararnn/core/dual.hpp"
#include "pararnn/core/number.hpp"
#include "pararnn/core/pattern.hpp"

namespace pararnn {

template <class C>
inline constexpr int kArguments = C::kState + C::kInputs + C::kParams;

/// For each component of the next state: which arguments it may depend on.
template <class C>
constexpr Vec<Pattern, C::kState> jacobian_pattern() {
  Vec<Pattern, C::kState> h{};
  Vec<Pattern, C::kInputs> u{};
  Vec<Pattern, C::kParams> w{};
  for (int i = 0; i < C::kState; ++i) h[i] = Pattern::argument(i);
  for (int i = 0; i < C::kInputs; ++i) u[i] = Pattern::argument(C::kState + i);
  for (int i = 0; i < C::kParams; ++i) w[i] = Pattern::argument(C::kState + C::kInputs + i);
  return C::step(h, u, w);
}

/// A struct that the engine can run, of at most 32 arguments, or the tangent of one. The step is
/// evaluated, at compile time: so a branch on a value is refused here, with the reason, rather than
/// found deep in a kernel.
template <class C>
concept Cell =
    C::kState >= 1 && C::kInputs >= 1 && C::kParams >= 0 && kArguments<C> <= 64 && requires {
  typename Index<(jacobian_pattern<C>()[0].bits, 0)>;
};

// A variable of its own: NVRTC takes nothing that a lambda captures for a constant.
template <Cell C>
inline constexpr Vec<Pattern, C::kState> kJacobianPattern = jacobian_pattern<C>();

/// One step: the state after (h, u). All that is run goes through here.
template <Cell C, class T>
PARARNN_FN Vec<T, C::kState> next_state(const Vec<T, C::kState>& h, const Vec<T, C::kInputs>& u,
                                        const Vec<T, C::kParams>& w) {
  const auto next = C::step(as_scalars(h), as_scalars(u), as_scalars(w));
  Vec<T, C::kState> result{};
  static_for<C::kState>([&](auto s) PARARNN_LAMBDA { result[s] = plain(next[s]); });
  return result;
}

/// The next state h_t and, if wanted, M' = J M for the S×S step Jacobian J = dh_t/dh_{t-1}.
template <class T, int S>
struct Linearized {
  Vec<T, S> next;
  Mat<T, S, S> product;
};

/// Evaluates the step at (h, u, w) and multiplies its state Jacobian to `m` from the left: the
/// columns of m are the directions in which the step is differentiated.
template <Cell C, class T>
PARARNN_FN Linearized<T, C::kState> linearize(const Vec<T, C::kState>& h,
                                              const Vec<T, C::kInputs>& u,
                                              const Vec<T, C::kParams>& w,
                                              const Mat<T, C::kState, C::kState>& m) {
  constexpr int S = C::kState;
  using D = Dual<typename ScalarOf<T>::type, S>;
  Vec<D, S> dual_h{};
  Vec<D, C::kInputs> dual_u{};
  Vec<D, C::kParams> dual_w{};
  static_for<S>([&](auto s) PARARNN_LAMBDA {
    dual_h[s].value = h[s];
    dual_h[s].support = D::kAllDirections;
    static_for<S>([&](auto i) PARARNN_LAMBDA { dual_h[s].tangent[i] = m(s, i); });
  });
  static_for<C::kInputs>([&](auto i) PARARNN_LAMBDA { dual_u[i].value = u[i]; });
  static_for<C::kParams>([&](auto i) PARARNN_LAMBDA { dual_w[i].value = w[i]; });
  const Vec<D, S> out = next_state<C>(dual_h, dual_u, dual_w);
  Linearized<T, S> result{};
  static_for<S>([&](auto s) PARARNN_LAMBDA {
    result.next[s] = plain(out[s].value);
    static_for<S>([&](auto i) PARARNN_LAMBDA { result.product(s, i) = plain(out[s].tangent[i]); });
  });
  return result;
}

/// The next state and the Jacobian of the step with respect to its first N arguments: N = kState
/// for the state alone, N = kArguments for all.
template <class T, int S, int N>
struct Differentiated {
  Vec<T, S> next;
  Mat<T, S, N> jacobian;
};

template <Cell C, int N, class T>
PARARNN_FN Differentiated<T, C::kState, N> differentiate(const Vec<T, C::kState>& h,
                                                         const Vec<T, C::kInputs>& u,
                                                         const Vec<T, C::kParams>& w) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  static_assert(N == S || N == S + U + P);
  using D = Dual<typename ScalarOf<T>::type, N>;
  Vec<D, S> dual_h{};
  Vec<D, U> dual_u{};
  Vec<D, P> dual_w{};
  static_for<S>([&](auto i) PARARNN_LAMBDA { dual_h[i] = D::variable(h[i], i); });
  static_for<U>([&](auto i) PARARNN_LAMBDA {
    if constexpr (N == S) {
      dual_u[i].value = u[i];
    } else {
      dual_u[i] = D::variable(u[i], S + i);
    }
  });
  static_for<P>([&](auto i) PARARNN_LAMBDA {
    if constexpr (N == S) {
      dual_w[i].value = w[i];
    } else {
      dual_w[i] = D::variable(w[i], S + U + i);
    }
  });
  const Vec<D, S> out = next_state<C>(dual_h, dual_u, dual_w);
  Differentiated<T, S, N> result{};
  static_for<S>([&](auto s) PARARNN_LAMBDA {
    result.next[s] = plain(out[s].value);
    static_for<N>([&](auto i) PARARNN_LAMBDA { result.jacobian(s, i) = plain(out[s].tangent[i]); });
  });
  return result;
}

/// lambda^T times the columns [first, first + Count) of a step's Jacobian. Entries that are zero by
/// the cell's structure cost nothing.
template <Cell C, int First, int Count, class T, int N>
PARARNN_FN Vec<T, Count> apply_transposed(const Mat<T, C::kState, N>& jacobian,
                                          const Vec<T, C::kState>& lambda) {
  Vec<T, Count> result{};
  static_for<Count>([&]<int I>(Index<I>) PARARNN_LAMBDA {
    static_for<C::kState>([&](auto s) PARARNN_LAMBDA {
      if constexpr (kJacobianPattern<C>[s].depends_on(First + I)) {
        result[I] = result[I] + lambda[s] * jacobian(s, First + I);
      }
    });
  });
  return result;
}

/// The vector-Jacobian products of one step: lambda^T dh_t/d(h_{t-1}, u_t, w).
template <class T, int S, int U, int P>
struct StepGradients {
  Vec<T, S> h;
  Vec<T, U> u;
  Vec<T, P> w;
};

template <Cell C, class T>
PARARNN_FN StepGradients<T, C::kState, C::kInputs, C::kParams> vjp(
    const Vec<T, C::kState>& h, const Vec<T, C::kInputs>& u, const Vec<T, C::kParams>& w,
    const Vec<T, C::kState>& lambda) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const auto d = differentiate<C, S + U + P>(h, u, w);
  return {apply_transposed<C, 0, S>(d.jacobian, lambda),
          apply_transposed<C, S, U>(d.jacobian, lambda),
          apply_transposed<C, S + U, P>(d.jacobian, lambda)};
}

}  // namespace pararnn
