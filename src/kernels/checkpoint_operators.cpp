// What a reader of checkpoints needs who knows LibTorch's operators alone, such as the Python
// package.
#include "base/hash.hpp"
#include "cells/cell_registry.hpp"
#include "kernels/torch_stable.hpp"

namespace pararnn::kernels {
namespace {

std::string stored_cell_key(StringHandle file_handle, StringHandle name_handle, bool trust) {
  const Text file(file_handle), name(name_handle);
  return find_stored_cell(std::string(file), std::string(name), trust).key();
}

std::string checksum(const Tensor& bytes) {
  require(bytes.is_cpu() && bytes.is_contiguous() && bytes.scalar_type() == ScalarType::Byte,
          "_checksum takes contiguous bytes on the CPU");
  return checksum_of(
      {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(bytes.numel())});
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def("_stored_cell_key(str file, str name, bool trust) -> str");
  m.def("_checksum(Tensor bytes) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(pararnn, CompositeExplicitAutograd, m) {
  m.impl("_stored_cell_key", &boxed<&stored_cell_key>);
  m.impl("_checksum", &boxed<&checksum>);
}

}  // namespace pararnn::kernels
