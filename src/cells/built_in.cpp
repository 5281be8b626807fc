#include "cells/built_in.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "pararnn/cells.hpp"
#include "pararnn/core/description.hpp"

namespace pararnn {
namespace {

/// The text of a header of the engine, as it was when this library was built.
std::string embedded_text(const std::string& name) {
  for (jit::Header& header : jit::embedded_headers()) {
    if (header.name == name) return std::move(header.text);
  }
  throw Error("the library lacks the text of " + name);
}

}  // namespace

const std::vector<CellDefinition>& built_in_cells() {
#define PARARNN_DEFINITION(name, Type)                                                        \
  describe_cell("#line 1 \"" #name ".hpp\"\n" + embedded_text("pararnn/cells/" #name ".hpp"), \
                "pararnn::" #Type, kDescription<Type>.data),
  static const auto& cells = *new std::vector<CellDefinition>{PARARNN_CELLS(PARARNN_DEFINITION)};
#undef PARARNN_DEFINITION
  return cells;
}

const std::string& digest_of_built_in(std::string_view name) {
  return std::ranges::find(built_in_cells(), name, &CellDefinition::name)->digest;
}

}  // namespace pararnn
