// A verdict for the terminal.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace pararnn {

/// The conclusion first, then what it rests on; some fifty lines of at most 100 columns.
std::string verdict_text(const nlohmann::json& verdict);

}  // namespace pararnn
