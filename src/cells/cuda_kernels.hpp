// The engine's GPU kernels of any cell, as programs to compile.
#pragma once

#include <string_view>

#include "cells/cell_definition.hpp"
#include "pararnn/cuda/kernel_list.hpp"

namespace pararnn {

/// A kernel of include/pararnn/cuda/ on tensors of a storage such as "float" or
/// "pararnn::cuda::BFloat16".
jit::KernelSource cuda_kernel(const cuda::Kernel& kernel, const CellDefinition& cell,
                              std::string_view storage);

}  // namespace pararnn
