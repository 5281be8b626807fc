// The engine's CPU kernels of any cell, for the instruction set in use.
#pragma once

#include <string>

#include "cells/cell_definition.hpp"
#include "pararnn/cpu/problem.hpp"

namespace pararnn {

/// The kernels in the arithmetic of T, float or double. Throws Error if they have to be compiled,
/// and cannot be.
template <class T>
const cpu::Kernels<T>& cpu_kernels(const CellDefinition& cell);
extern template const cpu::Kernels<float>& cpu_kernels(const CellDefinition& cell);
extern template const cpu::Kernels<double>& cpu_kernels(const CellDefinition& cell);

/// "avx512", "avx2" or "baseline": the best that this machine has, or the one that the environment
/// variable PARARNN_INSTRUCTION_SET names. Throws Error if the machine does not have that one.
const std::string& instruction_set();

}  // namespace pararnn
