// The verdict on a cell: does it parallelise along the sequence, and why? As JSON, of which
// verdict_text.hpp and verdict_page.hpp make something to read.
//
// The conclusion is one of three, by these criteria, in this order. "At moderate weights" means
// recurrent weights up to 1, standard normal inputs, and no bias on the gate that drives the
// memory.
//
//   runs in sequence              any channel has a positive Lyapunov exponent at moderate weights,
//                                 or a state that grows beyond all bounds: its trajectory cannot be
//                                 predicted, and the engine walks it in order
//   parallelises well             every channel forgets its start, to a mismatch of 1e-6, within
//   the
//                                 default burn-in: chunks run at once, and their boundaries agree
//   parallelises with             Newton's method needs at most kMaxNewtonIterations corrections,
//   in
//     corrections                 every channel and for every chunk of kShortestChunkOnGpu steps or
//                                 more
//   runs in sequence              otherwise: the engine ends by walking the chunks in order
//
// The result of the engine is right in all three; what differs is time. Trained weights may lie in
// another regime than moderate ones, so the sections show larger weights and biased gates as well.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace pararnn {

struct VerdictOptions {
  std::vector<std::string> devices = {"cpu"};  // to check and to time the cell on
  /// Of the kernels whose registers are told, such as "sm_90"; empty: the present GPU's, or sm_90.
  std::string architecture;
  /// Called with the name of each section before it is worked on.
  std::function<void(std::string_view)> progress = [](std::string_view) {};
};

/// All sections: "cell", "conclusion", "contract", "derivatives", "engine_against_loop",
/// "forgetting", "newton", "lyapunov", "kernels", "cost". A section that fails holds
/// "not_available", the reason. Takes 10 to 60 seconds. Throws Error only if there is no such cell.
nlohmann::json verdict(const std::string& cell, const VerdictOptions& options = {});

}  // namespace pararnn
