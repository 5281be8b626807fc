// Pattern: the scalar type that carries no number, only which of the cell's arguments a value may
// depend on. Evaluating a step with patterns, at compile time, gives the structure of its Jacobian.
#pragma once

#include "pararnn/core/math.hpp"

namespace pararnn {

struct Pattern : Scalar<Pattern> {
  /// Nothing is known of the outcome of a comparison.
  struct MaskBits {
    constexpr MaskBits operator&(MaskBits) const { return {}; }
    constexpr MaskBits operator|(MaskBits) const { return {}; }
    constexpr MaskBits operator!() const { return {}; }
  };
  unsigned long long bits = 0;  // bit i: depends on argument i

  constexpr Pattern() = default;
  template <Literal L>
  constexpr Pattern(L) {}
  static constexpr Pattern argument(int i) {
    Pattern result;
    result.bits = 1ull << i;
    return result;
  }
  constexpr bool depends_on(int i) const { return (bits >> i) & 1ull; }
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
constexpr Pattern sin(Pattern x) { return x; }
constexpr Pattern cos(Pattern x) { return x; }
constexpr Pattern erf(Pattern x) { return x; }
/// Has no derivative, as the choice between two numbers has none.
constexpr Pattern floor(Pattern) { return {}; }
constexpr Mask<Pattern> less(Pattern, Pattern) { return Mask<Pattern>({}); }
constexpr Mask<Pattern> less_equal(Pattern, Pattern) { return Mask<Pattern>({}); }
constexpr Mask<Pattern> is_nan(Pattern) { return Mask<Pattern>({}); }
constexpr Pattern select(Pattern::MaskBits, Pattern a, Pattern b) { return either(a, b); }

}  // namespace pararnn
