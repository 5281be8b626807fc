// What is asked of a cell to find out whether it parallelises: its step and its derivatives on
// plain arrays, behind function pointers. Only this is compiled for each cell; the analyses
// themselves (analysis/*.hpp) are plain functions over it.
//
// Arguments of every function: state h (S), inputs u (U), parameters w (P).
#pragma once

#include "pararnn/analysis/trace.hpp"
#include "pararnn/core/cell.hpp"

namespace pararnn {

template <class T>
struct CellFunctions {
  /// next (S) = f(h, u; w)
  void (*step)(const T* h, const T* u, const T* w, T* next);
  /// The same, and product (S,S) = J m for the Jacobian J with respect to the state and m (S,S).
  void (*linearize)(const T* h, const T* u, const T* w, const T* m, T* next, T* product);
};

/// One cell, as the analyses see it.
struct CellAnalysis {
  int state, inputs, params;
  CellFunctions<double> twice;
  CellFunctions<float> single;
  /// next (S), and the Jacobian (S,S+U+P) with respect to all arguments.
  void (*differentiate)(const double* h, const double* u, const double* w, double* next,
                        double* jacobian);
  Trace (*trace)();

  constexpr int arguments() const { return state + inputs + params; }
};

namespace detail {

template <int N, class T>
constexpr Vec<T, N> gathered(const T* values) {
  Vec<T, N> result{};
  for (int i = 0; i < N; ++i) result[i] = values[i];
  return result;
}

template <Cell C, class T>
void analysed_step(const T* h, const T* u, const T* w, T* next) {
  const Vec<T, C::kState> result =
      next_state<C>(gathered<C::kState>(h), gathered<C::kInputs>(u), gathered<C::kParams>(w));
  for (int s = 0; s < C::kState; ++s) next[s] = result[s];
}

template <Cell C, class T>
void analysed_linearize(const T* h, const T* u, const T* w, const T* m, T* next, T* product) {
  constexpr int S = C::kState;
  Mat<T, S, S> directions{};
  for (int i = 0; i < S * S; ++i) directions(i / S, i % S) = m[i];
  const Linearized<T, S> result =
      linearize<C>(gathered<S>(h), gathered<C::kInputs>(u), gathered<C::kParams>(w), directions);
  for (int s = 0; s < S; ++s) next[s] = result.next[s];
  for (int i = 0; i < S * S; ++i) product[i] = result.product(i / S, i % S);
}

template <Cell C>
void analysed_derivatives(const double* h, const double* u, const double* w, double* next,
                          double* jacobian) {
  constexpr int S = C::kState, N = kArguments<C>;
  const Differentiated<double, S, N> result =
      differentiate<C, N>(gathered<S>(h), gathered<C::kInputs>(u), gathered<C::kParams>(w));
  for (int s = 0; s < S; ++s) next[s] = result.next[s];
  for (int i = 0; i < S * N; ++i) jacobian[i] = result.jacobian(i / N, i % N);
}

template <Cell C, class T>
constexpr CellFunctions<T> analysed_functions() {
  return {&analysed_step<C, T>, &analysed_linearize<C, T>};
}

}  // namespace detail

/// Of a cell of the engine's, or of one that is compiled at run time.
template <Cell C>
CellAnalysis make_analysis() {
  return {C::kState,
          C::kInputs,
          C::kParams,
          detail::analysed_functions<C, double>(),
          detail::analysed_functions<C, float>(),
          &detail::analysed_derivatives<C>,
          &trace_of<C>};
}

}  // namespace pararnn
