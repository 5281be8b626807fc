#pragma once
#include <cstdio>
#include "pararnn/core/cell.hpp"
namespace pararnn {
struct StubText {
  char text[256];
  StubText(int s, int u, int p) {
    std::snprintf(text, 256,
                  "state %d\ninputs %d\nparams %d\nmemory_input -1\nmemory_direction "
                  "0\nside_inputs\nstate_names\ninput_names\nparam_names\nsummary stub\n",
                  s, u, p);
  }
};
template <class C>
inline const StubText kDescription{C::kState, C::kInputs, C::kParams};
}  // namespace pararnn
