// How fast models train, and where the time of a step goes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace pararnn::bench {

/// A bar for each measurement of `bench train` in a report: the shares of a step that its parts
/// take on the device, and what remains, in which none runs. Where a model was measured at several
/// lengths, above the bars tokens/s against length, a line for each such model. SVG text, legible
/// on light and dark pages. Throws Error if the report has no such measurement.
std::string training_svg(const nlohmann::json& report);

}  // namespace pararnn::bench
