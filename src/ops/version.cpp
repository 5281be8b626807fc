#include "ops/version.hpp"

#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/version.h>

namespace pararnn {

std::string version() {
  return fmt::format("pararnn {}, LibTorch {}, {}", PARARNN_VERSION, TORCH_VERSION,
                     at::get_cpu_capability());
}

}  // namespace pararnn
