// The engine's kernels of one cell for one instruction set. Compiled once for each pair, with
// PARARNN_CELL_HEADER, PARARNN_CELL_TYPE and PARARNN_KERNELS (the function's name) given.
#include PARARNN_CELL_HEADER
#include "pararnn/cpu/kernels.hpp"
#include "ops/cpu/cell_kernels.hpp"

namespace pararnn::cpu {

CellKernels PARARNN_KERNELS() {
  return {make_kernels<PARARNN_CELL_TYPE, float>(), make_kernels<PARARNN_CELL_TYPE, double>()};
}

}  // namespace pararnn::cpu
