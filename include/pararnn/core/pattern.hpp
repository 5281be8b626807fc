// Pattern: the scalar type that carries no number, only which of the cell's arguments a value may
// depend on. Evaluating a step with patterns, at compile time, gives the structure of its Jacobian.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn {

struct Pattern {
  unsigned bits = 0;  // bit i: depends on argument i

  constexpr Pattern() = default;
  constexpr Pattern(int) {}
  constexpr Pattern(float) {}
  constexpr Pattern(double) {}
  static constexpr Pattern argument(int i) {
    Pattern result;
    result.bits = 1u << i;
    return result;
  }
  constexpr bool depends_on(int i) const { return (bits >> i) & 1u; }
};

constexpr Pattern either(Pattern a, Pattern b) {
  Pattern result;
  result.bits = a.bits | b.bits;
  return result;
}

constexpr Pattern operator+(Pattern a, Pattern b) { return either(a, b); }
constexpr Pattern operator-(Pattern a, Pattern b) { return either(a, b); }
constexpr Pattern operator*(Pattern a, Pattern b) { return either(a, b); }
constexpr Pattern operator/(Pattern a, Pattern b) { return either(a, b); }
constexpr Pattern operator-(Pattern a) { return a; }
constexpr Pattern exp(Pattern x) { return x; }
constexpr Pattern log(Pattern x) { return x; }
constexpr Pattern log1p_unit(Pattern x) { return x; }
constexpr Pattern sqrt(Pattern x) { return x; }
constexpr Pattern tanh(Pattern x) { return x; }
constexpr Pattern abs(Pattern x) { return x; }
/// A mask is known only by what it depends on; the choice itself has no derivative.
constexpr Pattern less(Pattern a, Pattern b) { return either(a, b); }
constexpr Pattern is_nan(Pattern x) { return x; }
constexpr Pattern select(Pattern, Pattern a, Pattern b) { return either(a, b); }

}  // namespace pararnn
