#include "cells/cell_analysis.hpp"

#include "cells/built_in.hpp"
#include "cells/cell_table.hpp"
#include "pararnn/cells.hpp"

namespace pararnn {

const CellAnalysis& cell_analysis(const CellDefinition& cell) {
#define PARARNN_ANALYSIS(name, Type) {digest_of_built_in(#name), make_analysis<Type>()},
  static auto& tables =
      *new CellTables<CellAnalysis>({"pararnn/analysis.hpp", "pararnn::make_analysis<{}>", {"-O2"}},
                                    {PARARNN_CELLS(PARARNN_ANALYSIS)});
#undef PARARNN_ANALYSIS
  return tables.of(cell);
}

}  // namespace pararnn
