#include "kernels/version.hpp"

#include <fmt/format.h>
#include <torch/csrc/stable/c/shim.h>

#include "cells/cpu_kernels.hpp"

namespace pararnn {

std::string version() {
  const uint64_t torch = aoti_torch_abi_version();  // a byte each: major, minor, patch
  return fmt::format("pararnn {}, LibTorch {}.{}.{}, {}", PARARNN_VERSION, torch >> 56,
                     torch >> 48 & 0xff, torch >> 40 & 0xff, instruction_set());
}

}  // namespace pararnn
