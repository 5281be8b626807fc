// Which input decides how long a cell remembers, found out while the cell is compiled.
#pragma once

#include "pararnn/core/cell.hpp"
#include "pararnn/core/constant.hpp"

namespace pararnn {

/// The input whose bias lengthens a cell's memory, and the sign of the bias that does. Input -1,
/// direction 0: none.
struct Memory {
  int input = -1, direction = 0;
};

/// Whether input i of the cell is a side input: see docs/cells.md.
template <Cell C>
constexpr bool is_side_input(int i) {
  if constexpr (requires { C::kSideInputs[0]; }) {
    for (const int side : C::kSideInputs) {
      if (side == i) return true;
    }
  }
  return false;
}

/// The largest modulus of an eigenvalue: the limit of |m^k|^(1/k), here for k = 1024.
template <int S>
constexpr double spectral_radius(Mat<Constant, S, S> m) {
  Constant log_radius = 0, share = 1;
  for (int squarings = 0; squarings <= 10; ++squarings, share /= 2) {
    Constant norm = 0;
    for (const auto& row : m.data) {
      Constant sum = 0;
      for (const Constant entry : row) sum += abs(entry);
      norm = max(norm, sum);
    }
    if (norm.value == 0) return 0;
    log_radius += share * log(norm);
    for (auto& row : m.data) {
      for (Constant& entry : row) entry /= norm;
    }
    m = m * m;
  }
  return exp(log_radius).value;
}

/// How much of a small change of the state is left after a step, at rest: state and weights zero,
/// side inputs 1, and `input` at a value that opens or shuts its gate, the others at zero.
template <Cell C>
constexpr double memory_at_rest(int input, double value) {
  constexpr int S = C::kState;
  Vec<Constant, C::kInputs> u{};
  for (int i = 0; i < C::kInputs; ++i) u[i] = i == input ? value : is_side_input<C>(i) ? 1 : 0;
  return spectral_radius(
      differentiate<C, S>(Vec<Constant, S>{}, u, Vec<Constant, C::kParams>{}).jacobian);
}

/// The input that moves the memory at rest most when it goes from -8 to 8, by 0.5 at least; of some
/// that move it about as far, the first. A cell's own kMemory goes before.
template <Cell C>
constexpr Memory memory_of() {
  if constexpr (requires { C::kMemory[1]; }) {
    return {C::kMemory[0], C::kMemory[1]};
  } else {
    constexpr double kAbout = 0.05, kLeast = 0.5;
    Memory memory;
    double moved_most = kLeast - kAbout;
    for (int i = 0; i < C::kInputs; ++i) {
      if (is_side_input<C>(i)) continue;
      const double low = memory_at_rest<C>(i, -8), high = memory_at_rest<C>(i, 8);
      const double moved = high > low ? high - low : low - high;
      if (moved <= moved_most + kAbout) continue;
      moved_most = moved;
      const double from_one_low = abs(Constant(low - 1)).value;
      memory = {i, abs(Constant(high - 1)).value < from_one_low ? 1 : -1};
    }
    return memory;
  }
}

template <Cell C>
inline constexpr Memory kMemoryOf = memory_of<C>();

}  // namespace pararnn
