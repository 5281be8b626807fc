// What a reader of checkpoints needs who knows LibTorch's operators alone, such as the Python
// package.
#include <torch/library.h>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "cells/cell_registry.hpp"

namespace pararnn {
namespace {

std::string stored_cell_key(const std::string& file, const std::string& name, bool trust) {
  return find_stored_cell(file, name, trust).key();
}

std::string checksum_of_tensor(const at::Tensor& bytes) {
  require(bytes.is_cpu() && bytes.is_contiguous() && bytes.scalar_type() == at::kByte,
          "_checksum takes contiguous bytes on the CPU");
  return checksum_of({reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>()),
                      static_cast<size_t>(bytes.numel())});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def("_stored_cell_key(str file, str name, bool trust) -> str", &stored_cell_key);
  m.def("_checksum(Tensor bytes) -> str", &checksum_of_tensor);
}

}  // namespace pararnn
