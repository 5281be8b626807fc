// What a file with a cell of one's own includes. See docs/cells.md.
#pragma once

#include "pararnn/core/cell.hpp"
