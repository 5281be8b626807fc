// The cells of examples/cells, as a list like PARARNN_CELLS.
#pragma once

#include "../examples/cells/cfc.hpp"
#include "../examples/cells/cornn.hpp"
#include "../examples/cells/gru_d.hpp"
#include "../examples/cells/indrnn.hpp"
#include "../examples/cells/indrnn_relu.hpp"
#include "../examples/cells/janet.hpp"
#include "../examples/cells/logistic_map.hpp"
#include "../examples/cells/mgu.hpp"
#include "../examples/cells/min_gru.hpp"
#include "../examples/cells/multiscale.hpp"
#include "../examples/cells/peephole_lstm.hpp"
#include "../examples/cells/ugrnn.hpp"
#include "pararnn/cells.hpp"

/// X(name, its struct) for each cell.
#define PARARNN_PREDICTABLE_CATALOGUE(X) \
  X(mgu, Mgu)                            \
  X(ugrnn, Ugrnn)                        \
  X(janet, Janet)                        \
  X(indrnn, Indrnn)                      \
  X(indrnn_relu, IndrnnRelu)             \
  X(peephole_lstm, PeepholeLstm)         \
  X(cornn, Cornn)                        \
  X(cfc, Cfc)                            \
  X(gru_d, GruD)                         \
  X(multiscale, Multiscale)              \
  X(min_gru, MinGru)
#define PARARNN_CATALOGUE(X) PARARNN_PREDICTABLE_CATALOGUE(X) X(logistic_map, LogisticMap)

/// The built-in cells and those of the catalogue.
#define PARARNN_ALL_CELLS(X) PARARNN_CELLS(X) PARARNN_CATALOGUE(X)
