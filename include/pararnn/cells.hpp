// The built-in cells. A new one is a header in cells/ and a line here; tests, kernels, the program
// and the operators loop over this list.
#pragma once

#include "pararnn/cells/elman.hpp"
#include "pararnn/cells/gru.hpp"
#include "pararnn/cells/lstm.hpp"
#include "pararnn/cells/lstm_cifg.hpp"
#include "pararnn/cells/slstm.hpp"

/// X(name, Type, summary) for each cell.
#define PARARNN_CELLS(X)                                                          \
  X(elman, Elman, "simple recurrent network, tanh")                               \
  X(gru, Gru, "gated recurrent unit; inputs z, r, c")                             \
  X(lstm, Lstm, "long short-term memory; inputs f, i, o, g")                      \
  X(lstm_cifg, LstmCifg, "LSTM with coupled gates and peepholes; inputs f, z, o") \
  X(slstm, Slstm, "LSTM with exponential gating, normaliser and stabiliser; inputs f, i, z, o")

#if !defined(__CUDACC_RTC__)
#include <array>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pararnn {

struct CellInfo {
  std::string_view name;
  int state, inputs, params;
  std::string_view summary;
  std::string_view type;  // the struct's name in namespace pararnn
};

inline std::span<const CellInfo> cell_registry() {
#define PARARNN_CELL_INFO(name, Type, summary) \
  CellInfo{#name, Type::kState, Type::kInputs, Type::kParams, summary, #Type},
  static constexpr std::array kCells = {PARARNN_CELLS(PARARNN_CELL_INFO)};
#undef PARARNN_CELL_INFO
  return kCells;
}

/// The cell of that name; throws std::invalid_argument with the names there are.
inline const CellInfo& find_cell(std::string_view name) {
  std::string names;
  for (const CellInfo& cell : cell_registry()) {
    if (cell.name == name) return cell;
    names += (names.empty() ? "" : ", ") + std::string(cell.name);
  }
  throw std::invalid_argument("there is no cell '" + std::string(name) + "'; the cells are " +
                              names);
}

}  // namespace pararnn
#endif
