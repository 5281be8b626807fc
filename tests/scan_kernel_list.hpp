// Every kernel that a scan may launch on a GPU, from the lists of the drivers themselves.
#pragma once

#include <vector>

#include "pararnn/cuda/scan_backward.hpp"
#include "pararnn/cuda/scan_forward.hpp"

namespace pararnn::cuda {

/// Of a cell. `pairs`: for numbers of two bytes, of which two may come at once. `starts`: of rows
/// within which states may start anew.
inline std::vector<Kernel> every_kernel(const CellSizes& cell, bool pairs, bool starts) {
  std::vector<Kernel> kernels;
  const auto add = [&](const std::vector<Kernel>& more) {
    for (const Kernel& kernel : more) {
      if (std::ranges::find(kernels, kernel) == kernels.end()) kernels.push_back(kernel);
    }
  };
  for (const Way way : {Way::kSequential, Way::kSpeculative, Way::kNewton}) {
    for (const int pair : {1, 2}) {
      for (const Int channels : {2, 1 << 20}) {
        for (const bool decodes : {false, true}) {
          const Chunking size{1, 1, channels, 1, 1, 0};
          const Width width = forward_width(size, pair, decodes, 1);
          if (pair == 1 || pairs) add(forward_kernels(way, width, decodes && !starts, starts));
        }
      }
    }
    for (const Int warps : {1, 2, 3, 4, 100}) {
      const Chunking size{1, 1 << 10, warps * kWarp, 1 << 10, 1, 0};
      add(backward_kernels(way, starts, backward_groups(size, cell, starts, 1)));
    }
  }
  add({{Kernel::kForwardMismatch}, {Kernel::kBackwardMismatch}});
  return kernels;
}

}  // namespace pararnn::cuda
