#include "cells/cuda_kernels.hpp"

namespace pararnn {

jit::KernelSource cuda_kernel(const cuda::Kernel& kernel, const CellDefinition& cell,
                              std::string_view storage) {
  return {fmt::format("#include \"{}\"\n#include \"{}\"\n", kCellHeader, kernel_header(kernel)),
          kernel_expression(kernel, cell.type, storage),
          headers_of(cell),
          // A division to two units in the last place, without a branch.
          {"--prec-div=false", "--prec-sqrt=false"}};
}

}  // namespace pararnn
