// Counted: the scalar type that carries no number, only a tally of the operations that it takes
// part in. Evaluating a step with it counts what the step costs. Operations on constants alone are
// not counted: a compiler does them once.
#pragma once

#include "pararnn/core/math.hpp"

namespace pararnn {

/// What a step is made of. Comparisons are those of max, min and select; sigmoid and softplus count
/// as one operation each, not as the exponentials that they are made of.
enum class Operation {
  kAddition,
  kMultiplication,
  kDivision,
  kComparison,
  kExp,
  kLog,
  kSqrt,
  kTanh,
  kSigmoid,
  kSoftplus,
  kSin,
  kCos,
  kErf,
};
inline constexpr const char* kOperationNames[] = {
    "addition", "multiplication", "division", "comparison", "exp", "log", "sqrt",
    "tanh",     "sigmoid",        "softplus", "sin",        "cos", "erf"};
inline constexpr int kOperations = static_cast<int>(sizeof(kOperationNames) / sizeof(char*));

/// Whether an operation is a function of its own rather than arithmetic: what a step's time is
/// spent on.
constexpr bool is_special_function(Operation operation) { return operation >= Operation::kExp; }

struct OperationCounts {
  int of[kOperations] = {};

  constexpr int operator[](Operation operation) const { return of[static_cast<int>(operation)]; }
};

class Counted : public Scalar<Counted> {
 public:
  /// A comparison is known only by who counts what it chooses.
  struct MaskBits {
    OperationCounts* counts = nullptr;
    constexpr MaskBits operator&(MaskBits other) const { return counts ? *this : other; }
    constexpr MaskBits operator|(MaskBits other) const { return counts ? *this : other; }
    constexpr MaskBits operator!() const { return *this; }
  };

  constexpr Counted() = default;
  /// Constants.
  template <Literal L>
  constexpr Counted(L) {}
  /// A variable, whose operations are added to `counts`.
  constexpr explicit Counted(OperationCounts* counts) : counts_(counts) {}

  friend constexpr Counted operator+(Counted a, Counted b) {
    return a.with(b, Operation::kAddition);
  }
  friend constexpr Counted operator-(Counted a, Counted b) {
    return a.with(b, Operation::kAddition);
  }
  friend constexpr Counted operator*(Counted a, Counted b) {
    return a.with(b, Operation::kMultiplication);
  }
  friend constexpr Counted operator/(Counted a, Counted b) {
    return a.with(b, Operation::kDivision);
  }
  /// A change of sign costs nothing: it goes into the operation that follows.
  friend constexpr Counted operator-(Counted a) { return a; }

  friend constexpr Mask<Counted> less(Counted a, Counted b) {
    return Mask<Counted>({a.with(b, Operation::kComparison).counts_});
  }
  friend constexpr Mask<Counted> less_equal(Counted a, Counted b) { return less(a, b); }
  friend constexpr Mask<Counted> is_nan(Counted x) { return Mask<Counted>({x.counts_}); }
  friend constexpr Counted select(MaskBits mask, Counted a, Counted b) {
    return Counted(mask.counts ? mask.counts : a.counts_ ? a.counts_ : b.counts_);
  }

  friend constexpr Counted exp(Counted x) { return x.with({}, Operation::kExp); }
  friend constexpr Counted log(Counted x) { return x.with({}, Operation::kLog); }
  friend constexpr Counted log1p_unit(Counted x) { return x.with({}, Operation::kLog); }
  friend constexpr Counted sqrt(Counted x) { return x.with({}, Operation::kSqrt); }
  friend constexpr Counted tanh(Counted x) { return x.with({}, Operation::kTanh); }
  friend constexpr Counted sigmoid(Counted x) { return x.with({}, Operation::kSigmoid); }
  friend constexpr Counted softplus(Counted x) { return x.with({}, Operation::kSoftplus); }
  friend constexpr Counted sin(Counted x) { return x.with({}, Operation::kSin); }
  friend constexpr Counted cos(Counted x) { return x.with({}, Operation::kCos); }
  friend constexpr Counted erf(Counted x) { return x.with({}, Operation::kErf); }
  friend constexpr Counted floor(Counted x) { return x; }
  friend constexpr Counted abs(Counted x) { return x; }

 private:
  constexpr Counted with(Counted other, Operation operation) const {
    OperationCounts* counts = counts_ ? counts_ : other.counts_;
    if (counts) ++counts->of[static_cast<int>(operation)];
    return Counted(counts);
  }

  OperationCounts* counts_ = nullptr;  // null: a constant
};

}  // namespace pararnn
