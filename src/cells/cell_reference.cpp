#include "cells/cell_reference.hpp"

#include "cells/built_in.hpp"
#include "cells/cell_table.hpp"
#include "pararnn/cells.hpp"

namespace pararnn {

const CellReference& cell_reference(const CellDefinition& cell) {
#define PARARNN_REFERENCE(name, Type) {digest_of_built_in(#name), make_reference<Type>()},
  static auto& tables = *new CellTables<CellReference>(
      {"pararnn/cell_reference.hpp", "pararnn::make_reference<{}>", {"-O2"}},
      {PARARNN_CELLS(PARARNN_REFERENCE)});
#undef PARARNN_REFERENCE
  return tables.of(cell);
}

}  // namespace pararnn
