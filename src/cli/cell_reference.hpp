// The plain loops of the built-in cells, by name: what `check` compares with and `bench` beats.
#pragma once

#include <string>

#include "pararnn/cells/gru.hpp"
#include "pararnn/reference_bounds.hpp"

namespace pararnn::cli {

/// The loops of one cell. All cells' have the types of any one's.
struct CellReference {
  decltype(&reference_bounds<Gru, float>) single_bounds;
  decltype(&reference_bounds<Gru, double>) double_bounds;
  decltype(&reference_forward<Gru, float>) single_forward;
  decltype(&reference_backward<Gru, float>) single_backward;
};

/// Throws std::invalid_argument if there is no such cell.
const CellReference& cell_reference(const std::string& cell);

}  // namespace pararnn::cli
