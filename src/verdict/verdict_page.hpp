// A verdict as a web page.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace pararnn {

/// One HTML file that needs nothing else: no script, no font, no network. Light or dark as the
/// reader's system is, legible from 360 pixels of width on.
std::string verdict_page(const nlohmann::json& verdict);

}  // namespace pararnn
