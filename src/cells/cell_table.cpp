#include "cells/cell_table.hpp"

#include <fmt/format.h>

#include "jit/host_compiler.hpp"

namespace pararnn {

void compile_table(const CellDefinition& cell, const TableProgram& program, void* table) {
  constexpr const char* kSymbol = "pararnn_make_table";
  const std::string made = fmt::format(fmt::runtime(program.function), cell.type);
  const std::string text = fmt::format(
      "#include <new>\n#include \"pararnn_cell.hpp\"\n#include \"{}\"\n"
      "extern \"C\" __attribute__((visibility(\"default\"))) void {}(void* table) {{\n"
      "  new (table) auto({}());\n}}\n",
      program.header, kSymbol, made);
  try {
    void* function = jit::load_function({.text = text,
                                         .function = kSymbol,
                                         .headers = headers_of(cell),
                                         .options = program.options,
                                         .folder = cell.folder()});
    reinterpret_cast<void (*)(void*)>(function)(table);
  } catch (const jit::CompileError& error) {
    throw explain(cell, error);
  }
}

}  // namespace pararnn
