// The plots of a verdict's page, as SVG that takes its colours from the page:
//
//   --ink, --faint   lines and text      --calm, --alarm   where a cell forgets, where it does not
//
// Drawn 440 wide, so that text stays legible when a page of 360 pixels scales them down.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pararnn {

/// A plot and the names of its lines, in the order of svg::kColors; a page sets them beside it.
struct VerdictPlot {
  std::string svg;
  std::vector<std::string> legend;
};

/// Mismatch against burn-in, both logarithmic: worst channel solid, median dashed.
VerdictPlot forgetting_plot(const nlohmann::json& forgetting);

/// Newton corrections of the worst channel against chunk length.
VerdictPlot newton_plot(const nlohmann::json& newton);

/// The largest Lyapunov exponent over weights and gate biases.
VerdictPlot lyapunov_plot(const nlohmann::json& lyapunov);

/// The largest deviation from the plain loop over weights and gate biases, on one device of the
/// section "engine_against_loop".
VerdictPlot deviation_plot(const nlohmann::json& engine, const nlohmann::json& device);

/// A step's time beside gru's, on all devices.
VerdictPlot cost_plot(const nlohmann::json& cost);

}  // namespace pararnn
