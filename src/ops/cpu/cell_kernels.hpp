// The built-in cells' CPU kernels, chosen for the machine at run time.
#pragma once

#include <string>

#include "pararnn/cpu/problem.hpp"

namespace pararnn::cpu {

/// One cell for one instruction set, in both arithmetics.
struct CellKernels {
  Kernels<float> single;
  Kernels<double> twice;

  template <class T>
  const Kernels<T>& get() const {
    if constexpr (sizeof(T) == 4) {
      return single;
    } else {
      return twice;
    }
  }
};

/// "avx512", "avx2" or "baseline": the best that this machine has, or the one that the environment
/// variable PARARNN_INSTRUCTION_SET names. Throws Error if the machine does not have that one.
const std::string& instruction_set();

/// The kernels of a built-in cell; throws std::invalid_argument if there is no such cell.
const CellKernels& cell_kernels(const std::string& cell);

}  // namespace pararnn::cpu
