// Where the time of training steps goes, as bars.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace pararnn::bench {

/// A bar for each measurement of `bench train` in a report: the shares of a step that its parts
/// take on the device, and what remains, in which none runs. SVG text, legible on light and dark
/// pages. Throws Error if the report has no such measurement.
std::string training_parts_svg(const nlohmann::json& report);

}  // namespace pararnn::bench
