// Cubins: ELF files of machine code for a GPU. The section .nv.info.<symbol> lists properties of a
// kernel, among them its parameters.
#pragma once

#include <string_view>
#include <vector>

namespace pararnn::jit {

/// The sizes in bytes of a kernel's parameters, in order; empty if it has none, or if the cubin
/// does not tell in a way that is known here. Throws Error if the cubin is cut short.
std::vector<size_t> parameter_bytes(std::string_view cubin, std::string_view symbol);

}  // namespace pararnn::jit
