#include "cells/cell_description.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "jit/host_compiler.hpp"
#include "jit/nvrtc.hpp"

namespace pararnn {
namespace {

constexpr const char* kSymbol = "pararnn_description";

std::string by_host_compiler(const CellDefinition& cell) {
  const std::string text = fmt::format(
      "#include \"pararnn_cell.hpp\"\n#include \"pararnn/core/contract.hpp\"\n"
      "#include \"pararnn/core/description.hpp\"\n"
      "static_assert(pararnn::check_contract<{}>());\n"
      "extern \"C\" __attribute__((visibility(\"default\"))) const char* {}() {{\n"
      "  return pararnn::kDescription<{}>.data;\n}}\n",
      cell.type, kSymbol, cell.type);
  void* function = jit::load_function({.text = text,
                                       .function = kSymbol,
                                       .headers = headers_of(cell),
                                       .options = {"-O0"},
                                       .folder = cell.folder()});
  return reinterpret_cast<const char* (*)()>(function)();
}

/// The bytes of a constant array in PTX, which lists them as `.b8 name[5] = {103, 114, 117}`: zeros
/// at the end are left out.
std::string array_in_ptx(std::string_view ptx, std::string_view name) {
  size_t at = ptx.find(fmt::format(" {}[", name));
  at = at == ptx.npos ? at : ptx.find('{', at);
  require(at != ptx.npos, "NVRTC gave no description of a cell");
  std::string bytes;
  int number = 0;
  for (++at; at < ptx.size(); ++at) {
    const char c = ptx[at];
    if (c >= '0' && c <= '9') number = 10 * number + (c - '0');
    if (c != ',' && c != '}') continue;
    if (number == 0) break;
    bytes += static_cast<char>(number);
    number = 0;
    if (c == '}') break;
  }
  return bytes;
}

std::string by_nvrtc(const CellDefinition& cell) {
  const std::string text = fmt::format(
      "#include \"pararnn_cell.hpp\"\n#include \"pararnn/core/contract.hpp\"\n"
      "#include \"pararnn/core/description.hpp\"\n"
      "static_assert(pararnn::check_contract<{}>());\n"
      "extern \"C\" __device__ const auto {} = pararnn::kDescription<{}>;\n",
      cell.type, kSymbol, cell.type);
  return array_in_ptx(jit::compile_to_ptx(text, headers_of(cell)), kSymbol);
}

}  // namespace

std::string compiled_description(const CellDefinition& cell) {
  return jit::find_host_compiler().empty() ? by_nvrtc(cell) : by_host_compiler(cell);
}

}  // namespace pararnn
