// The built-in cells. A new one is a header in cells/ and a line here; tests, kernels, the program
// and the operators loop over this list.
#pragma once

#include "pararnn/cells/elman.hpp"
#include "pararnn/cells/gru.hpp"
#include "pararnn/cells/lstm.hpp"
#include "pararnn/cells/lstm_cifg.hpp"
#include "pararnn/cells/slstm.hpp"

/// X(name, Type) for each cell.
#define PARARNN_CELLS(X) \
  X(elman, Elman)        \
  X(gru, Gru)            \
  X(lstm, Lstm)          \
  X(lstm_cifg, LstmCifg) \
  X(slstm, Slstm)
