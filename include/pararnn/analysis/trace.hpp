// Traced: the scalar type that carries no number, but its place in a list to which every operation
// on it is added. Evaluating a step with it writes the step down: a list that can be counted, and
// run on any other kind of number.
//
//   h[0] * (1 - u[0])   of a cell with one state and one input is traced as
//   0: argument   1: argument   2: constant 1   3: subtraction 2 1   4: multiplication 0 3
//
// Operations on constants alone are done at once, as a compiler does.
#pragma once

#include <vector>

#include "pararnn/core/math.hpp"
#include "pararnn/core/vec.hpp"

namespace pararnn {

enum class Operation {
  kArgument,  // state, inputs and parameters, one after the other
  kConstant,
  kNegation,
  kAddition,
  kSubtraction,
  kMultiplication,
  kDivision,
  kAbs,
  kFloor,
  kMax,
  kMin,
  // Masks, of numbers or of masks.
  kLess,
  kLessEqual,
  kIsNan,
  kAnd,
  kNot,
  kSelect,  // of a mask and two numbers
  // Special functions.
  kExp,
  kLog,
  kLog1pUnit,
  kSqrt,
  kTanh,
  kSigmoid,
  kSoftplus,
  kLogSigmoid,
  kSin,
  kCos,
  kErf,
};
inline constexpr int kOperations = static_cast<int>(Operation::kErf) + 1;

/// Whether an operation is a function of its own rather than arithmetic: what a step's time is
/// spent on.
constexpr bool is_special_function(Operation operation) { return operation >= Operation::kExp; }

struct TracedOperation {
  Operation operation;
  int operands[3] = {-1, -1, -1};  // earlier places in the list
  double constant = 0;             // of kConstant
};

/// A step, written down.
struct Trace {
  std::vector<TracedOperation> list;  // begins with the arguments
  std::vector<int> next;              // where the components of the next state stand
};

/// What the operations of a step are called where they are counted. Those without a name cost next
/// to nothing: they go into the operation that follows, or choose between two numbers.
constexpr const char* counted_name(Operation operation) {
  switch (operation) {
    case Operation::kAddition:
    case Operation::kSubtraction:
      return "addition";
    case Operation::kMultiplication:
      return "multiplication";
    case Operation::kDivision:
      return "division";
    case Operation::kLess:
    case Operation::kLessEqual:
    case Operation::kMax:
    case Operation::kMin:
      return "comparison";
    case Operation::kExp:
      return "exp";
    case Operation::kLog:
    case Operation::kLog1pUnit:
      return "log";
    case Operation::kSqrt:
      return "sqrt";
    case Operation::kTanh:
      return "tanh";
    case Operation::kSigmoid:
      return "sigmoid";
    case Operation::kSoftplus:
    case Operation::kLogSigmoid:
      return "softplus";
    case Operation::kSin:
      return "sin";
    case Operation::kCos:
      return "cos";
    case Operation::kErf:
      return "erf";
    default:
      return nullptr;
  }
}

class Traced : public Scalar<Traced> {
 public:
  struct MaskBits {
    Trace* trace = nullptr;
    int place = -1;
    bool constant = false;

    friend MaskBits operator&(const MaskBits& a, const MaskBits& b) {
      if (!a.trace) return a.constant ? b : a;
      if (!b.trace) return b.constant ? a : b;
      return add(Operation::kAnd, a, b);
    }
    friend MaskBits operator|(const MaskBits& a, const MaskBits& b) { return !((!a) & (!b)); }
    MaskBits operator!() const {
      return trace ? add(Operation::kNot, *this, *this) : MaskBits{nullptr, -1, !constant};
    }

   private:
    static MaskBits add(Operation operation, const MaskBits& a, const MaskBits& b) {
      a.trace->list.push_back({operation, {a.place, b.place}});
      return {a.trace, static_cast<int>(a.trace->list.size()) - 1};
    }
  };

  constexpr Traced() = default;
  /// A constant.
  template <Literal L>
  constexpr Traced(L value) : constant_(static_cast<double>(value)) {}
  /// The next argument of `trace`.
  explicit Traced(Trace* trace) : trace_(trace), place_(static_cast<int>(trace->list.size())) {
    trace->list.push_back({Operation::kArgument});
  }

  /// Its place in the list of `trace`, to which a constant is added when it is first used.
  int place_in(Trace* trace) const {
    if (trace_) return place_;
    const int size = static_cast<int>(trace->list.size());
    for (int i = 0; i < size; ++i) {
      const TracedOperation& known = trace->list[i];
      if (known.operation == Operation::kConstant && known.constant == constant_) return i;
    }
    trace->list.push_back({Operation::kConstant, {}, constant_});
    return size;
  }

  friend Traced operator+(const Traced& a, const Traced& b) {
    return binary(Operation::kAddition, a, b, a.constant_ + b.constant_);
  }
  friend Traced operator-(const Traced& a, const Traced& b) {
    return binary(Operation::kSubtraction, a, b, a.constant_ - b.constant_);
  }
  friend Traced operator*(const Traced& a, const Traced& b) {
    return binary(Operation::kMultiplication, a, b, a.constant_ * b.constant_);
  }
  friend Traced operator/(const Traced& a, const Traced& b) {
    return binary(Operation::kDivision, a, b, a.constant_ / b.constant_);
  }
  friend Mask<Traced> less(const Traced& a, const Traced& b) {
    return mask(Operation::kLess, a, b, a.constant_ < b.constant_);
  }
  friend Mask<Traced> less_equal(const Traced& a, const Traced& b) {
    return mask(Operation::kLessEqual, a, b, a.constant_ <= b.constant_);
  }
  friend Mask<Traced> is_nan(const Traced& x) {
    return mask(Operation::kIsNan, x, x, pararnn::is_nan(x.constant_));
  }
  friend Traced select(const MaskBits& mask, const Traced& a, const Traced& b) {
    if (!mask.trace) return mask.constant ? a : b;
    const int first = a.place_in(mask.trace), second = b.place_in(mask.trace);
    auto& list = mask.trace->list;
    const TracedOperation& why = list[mask.place];
    const TracedOperation& other = list[second];
    // As core/scalar.hpp composes max, and core/math.hpp relu: a constant is known not to be NaN.
    const bool larger = why.operation == Operation::kLess && first == why.operands[1];
    const bool or_nan = other.operation == Operation::kSelect && other.operands[1] == first &&
                        other.operands[2] == why.operands[0] &&
                        list[other.operands[0]].operation == Operation::kIsNan &&
                        list[other.operands[0]].operands[0] == first;
    const bool of_constant =
        second == why.operands[0] && list[first].operation == Operation::kConstant;
    const bool is_max = larger && (or_nan || of_constant);
    if (is_max) {
      list.push_back({Operation::kMax, {why.operands[0], first}});
    } else {
      list.push_back({Operation::kSelect, {mask.place, first, second}});
    }
    return last_of(mask.trace);
  }

#define PARARNN_TRACED(name, operation)                                \
  friend Traced name(const Traced& x) {                                \
    return unary(Operation::operation, x, pararnn::name(x.constant_)); \
  }
  PARARNN_TRACED(exp, kExp)
  PARARNN_TRACED(log, kLog)
  PARARNN_TRACED(log1p_unit, kLog1pUnit)
  PARARNN_TRACED(sqrt, kSqrt)
  PARARNN_TRACED(tanh, kTanh)
  PARARNN_TRACED(sigmoid, kSigmoid)
  PARARNN_TRACED(softplus, kSoftplus)
  PARARNN_TRACED(sin, kSin)
  PARARNN_TRACED(cos, kCos)
  PARARNN_TRACED(erf, kErf)
  PARARNN_TRACED(floor, kFloor)
  PARARNN_TRACED(abs, kAbs)
#undef PARARNN_TRACED
  friend Traced operator-(const Traced& x) {
    if (!x.trace_) return Traced(-x.constant_);
    auto& list = x.trace_->list;
    const TracedOperation of = list[x.place_];
    const auto negated = [&](int i) {
      return list[of.operands[i]].operation == Operation::kNegation
                 ? list[of.operands[i]].operands[0]
                 : -1;
    };
    // As core/scalar.hpp composes min, and core/math.hpp log_sigmoid.
    if (of.operation == Operation::kMax && negated(0) >= 0 && negated(1) >= 0) {
      list.push_back({Operation::kMin, {negated(0), negated(1)}});
    } else if (of.operation == Operation::kSoftplus && negated(0) >= 0) {
      list.push_back({Operation::kLogSigmoid, {negated(0)}});
    } else {
      list.push_back({Operation::kNegation, {x.place_}});
    }
    return last_of(x.trace_);
  }

 private:
  static Traced last_of(Trace* trace) {
    Traced result;
    result.trace_ = trace;
    result.place_ = static_cast<int>(trace->list.size()) - 1;
    return result;
  }
  static Traced unary(Operation operation, const Traced& x, double of_constants) {
    if (!x.trace_) return Traced(of_constants);
    x.trace_->list.push_back({operation, {x.place_}});
    return last_of(x.trace_);
  }
  static Traced binary(Operation operation, const Traced& a, const Traced& b, double of_constants) {
    Trace* const trace = a.trace_ ? a.trace_ : b.trace_;
    if (!trace) return Traced(of_constants);
    const int first = a.place_in(trace), second = b.place_in(trace);
    trace->list.push_back({operation, {first, second}});
    return last_of(trace);
  }
  static Mask<Traced> mask(Operation operation, const Traced& a, const Traced& b,
                           bool of_constants) {
    const Traced result = binary(operation, a, b, 0);
    return Mask<Traced>({result.trace_, result.place_, !result.trace_ && of_constants});
  }

  Trace* trace_ = nullptr;  // null: a constant
  int place_ = -1;
  double constant_ = 0;
};

/// The trace without the operations that nothing comes from.
inline Trace without_unused(const Trace& trace) {
  std::vector<char> used(trace.list.size());
  for (const int place : trace.next) used[place] = true;
  for (int i = static_cast<int>(trace.list.size()) - 1; i >= 0; --i) {
    if (trace.list[i].operation == Operation::kArgument) used[i] = true;
    for (const int operand : trace.list[i].operands) {
      if (used[i] && operand >= 0) used[operand] = true;
    }
  }
  Trace result;
  std::vector<int> moved(trace.list.size(), -1);
  for (int i = 0; i < static_cast<int>(trace.list.size()); ++i) {
    if (!used[i]) continue;
    moved[i] = static_cast<int>(result.list.size());
    result.list.push_back(trace.list[i]);
    for (int& operand : result.list.back().operands) {
      if (operand >= 0) operand = moved[operand];
    }
  }
  for (const int place : trace.next) result.next.push_back(moved[place]);
  return result;
}

/// The step of a cell.
template <class C>
Trace trace_of() {
  Trace trace;
  Vec<Traced, C::kState> h{};
  Vec<Traced, C::kInputs> u{};
  Vec<Traced, C::kParams> w{};
  for (int i = 0; i < C::kState; ++i) h[i] = Traced(&trace);
  for (int i = 0; i < C::kInputs; ++i) u[i] = Traced(&trace);
  for (int i = 0; i < C::kParams; ++i) w[i] = Traced(&trace);
  const auto next = C::step(h, u, w);
  for (int s = 0; s < C::kState; ++s) trace.next.push_back(next[s].place_in(&trace));
  return without_unused(trace);
}

/// The next state, by the functions of numbers X and the masks that X's comparisons give. The
/// arguments are state, inputs and parameters.
template <class X>
std::vector<X> evaluate(const Trace& trace, const std::vector<X>& arguments) {
  using Masks = std::vector<decltype(less(arguments[0], arguments[0]))>;
  std::vector<X> numbers;
  Masks masks;
  std::vector<int> mask_of(trace.list.size(), -1);
  for (int i = 0; i < static_cast<int>(trace.list.size()); ++i) {
    const TracedOperation& o = trace.list[i];
    const auto x = [&](int k) -> const X& { return numbers[o.operands[k]]; };
    const auto mask = [&](int k) -> const auto& { return masks[mask_of[o.operands[k]]]; };
    const auto keep_mask = [&](const auto& value) {
      mask_of[i] = static_cast<int>(masks.size());
      masks.push_back(value);
      numbers.emplace_back();
    };
    switch (o.operation) {
#define PARARNN_NUMBER(operation, expression) \
  case Operation::operation:                  \
    numbers.push_back(expression);            \
    break;
#define PARARNN_MASK(operation, expression) \
  case Operation::operation:                \
    keep_mask(expression);                  \
    break;
      PARARNN_NUMBER(kArgument, arguments[i])
      PARARNN_NUMBER(kConstant, X(o.constant))
      PARARNN_NUMBER(kNegation, -x(0))
      PARARNN_NUMBER(kAddition, x(0) + x(1))
      PARARNN_NUMBER(kSubtraction, x(0) - x(1))
      PARARNN_NUMBER(kMultiplication, x(0) * x(1))
      PARARNN_NUMBER(kDivision, x(0) / x(1))
      PARARNN_NUMBER(kAbs, abs(x(0)))
      PARARNN_NUMBER(kFloor, floor(x(0)))
      PARARNN_NUMBER(kMax, max(x(0), x(1)))
      PARARNN_NUMBER(kMin, min(x(0), x(1)))
      PARARNN_MASK(kLess, less(x(0), x(1)))
      PARARNN_MASK(kLessEqual, less_equal(x(0), x(1)))
      PARARNN_MASK(kIsNan, is_nan(x(0)))
      PARARNN_MASK(kAnd, mask(0) && mask(1))
      PARARNN_MASK(kNot, !mask(0))
      PARARNN_NUMBER(kSelect, select(mask(0), x(1), x(2)))
      PARARNN_NUMBER(kExp, exp(x(0)))
      PARARNN_NUMBER(kLog, log(x(0)))
      PARARNN_NUMBER(kLog1pUnit, log1p_unit(x(0)))
      PARARNN_NUMBER(kSqrt, sqrt(x(0)))
      PARARNN_NUMBER(kTanh, tanh(x(0)))
      PARARNN_NUMBER(kSigmoid, sigmoid(x(0)))
      PARARNN_NUMBER(kSoftplus, softplus(x(0)))
      PARARNN_NUMBER(kLogSigmoid, log_sigmoid(x(0)))
      PARARNN_NUMBER(kSin, sin(x(0)))
      PARARNN_NUMBER(kCos, cos(x(0)))
      PARARNN_NUMBER(kErf, erf(x(0)))
#undef PARARNN_NUMBER
#undef PARARNN_MASK
    }
  }
  std::vector<X> next;
  for (const int place : trace.next) next.push_back(numbers[place]);
  return next;
}

}  // namespace pararnn
