#include "jit/scan_kernels.hpp"

#include "base/error.hpp"

namespace pararnn::jit {

KernelSource scan_kernel_source(const cuda::Kernel& kernel, std::string_view cell_header,
                                std::string_view cell_type, std::string_view storage) {
  return {fmt::format("#include \"{}\"\n#include \"{}\"\n", cell_header, kernel_header(kernel)),
          kernel_expression(kernel, cell_type, storage),
          {},
          // A division to two units in the last place, without a branch.
          {"--prec-div=false", "--prec-sqrt=false"}};
}

}  // namespace pararnn::jit
