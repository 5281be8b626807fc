#include "cli/cell_reference.hpp"

#include <map>

#include "pararnn/cells.hpp"

namespace pararnn::cli {

const CellReference& cell_reference(const std::string& cell) {
  static const std::map<std::string, CellReference> references = {
#define PARARNN_CELL_REFERENCE(name, Type, summary)                  \
  {#name,                                                            \
   {&reference_bounds<Type, float>, &reference_bounds<Type, double>, \
    &reference_forward<Type, float>, &reference_backward<Type, float>}},
      PARARNN_CELLS(PARARNN_CELL_REFERENCE)
#undef PARARNN_CELL_REFERENCE
  };
  find_cell(cell);  // throws with the names there are
  return references.at(cell);
}

}  // namespace pararnn::cli
