// The scan's kernels of include/pararnn/cuda/ as programs to compile.
#pragma once

#include <string_view>

#include "jit/source.hpp"
#include "pararnn/cuda/kernel_list.hpp"

namespace pararnn::jit {

/// A kernel of a cell, given by its header and the name of its struct in C++, on tensors of a
/// storage such as "float" or "pararnn::cuda::BFloat16".
KernelSource scan_kernel_source(const cuda::Kernel& kernel, std::string_view cell_header,
                                std::string_view cell_type, std::string_view storage);

}  // namespace pararnn::jit
