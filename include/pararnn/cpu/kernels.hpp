// The kernels of one cell on the CPU.
#pragma once

#include "pararnn/cpu/backward_pass.hpp"
#include "pararnn/cpu/forward_pass.hpp"

namespace pararnn::cpu {
inline namespace PARARNN_INSTRUCTION_SET {

/// The kernels of cell C for arithmetic in T, for the instruction set this file is compiled for.
template <Cell C, class T>
Kernels<T> make_kernels() {
  return {C::kState,
          C::kInputs,
          C::kParams,
          kLanesFor<C, T>,
          &ForwardKernel<C, T>::run,
          &BackwardKernel<C, T>::run};
}

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
