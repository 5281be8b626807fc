// The CPU kernels of one built-in cell for one instruction set. Compiled once for each pair, with
// PARARNN_CELL_HEADER, PARARNN_CELL_TYPE and PARARNN_KERNELS (the functions' name) given.
#include PARARNN_CELL_HEADER
#include "pararnn/cpu/kernels.hpp"

namespace pararnn::cpu {

void PARARNN_KERNELS(Kernels<float>& kernels) {
  kernels = make_kernels<PARARNN_CELL_TYPE, float>();
}
void PARARNN_KERNELS(Kernels<double>& kernels) {
  kernels = make_kernels<PARARNN_CELL_TYPE, double>();
}

}  // namespace pararnn::cpu
