// The cell contract, word by word: a struct that breaks it is told which part of it, where the
// concept Cell only says no. For compilers of what a user wrote.
#pragma once

#include "pararnn/core/cell.hpp"

namespace pararnn {

/// Fails to compile, with the reason, unless C is a cell.
template <class C>
constexpr bool check_contract() {
  static_assert(
      requires {
        C::kState;
        C::kInputs;
        C::kParams;
      },
      "a cell needs `static constexpr int kState, kInputs, kParams`");
  static_assert(C::kState >= 1 && C::kInputs >= 1 && C::kParams >= 0,
                "a cell has at least one state, one input and no negative number of parameters");
  static_assert(C::kState + C::kInputs + C::kParams <= 32,
                "a cell has at most 32 states, inputs and parameters together");
  using State = Vec<Pattern, C::kState>;
  using Inputs = Vec<Pattern, C::kInputs>;
  using Params = Vec<Pattern, C::kParams>;
  static_assert(
      requires(State h, Inputs u, Params w) { C::step(h, u, w); },
      "step is no `template <class T> static` function of h (kState numbers), u (kInputs) "
      "and w (kParams)");
  static_assert(
      requires(State h, Inputs u, Params w, State next) { next = C::step(h, u, w); },
      "step does not return kState numbers");
  static_assert(Cell<C>, "the struct is no cell");
  return true;
}

}  // namespace pararnn
