#include "verdict/svg.hpp"

#include <fmt/format.h>

#include <cmath>

namespace pararnn::svg {

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '&':
        result += "&amp;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string text(double x, double y, std::string_view anchor, std::string_view words,
                 std::string_view attributes) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}{}>{}</text>\n", x, y,
                     anchor, attributes.empty() ? "" : " ", attributes, escaped(words));
}

std::string line(double x1, double y1, double x2, double y2, std::string_view attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1,
                     x2, y2, attributes);
}

std::string marker(double x, double y, std::string_view color, bool hollow) {
  return fmt::format(
      "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" stroke=\"{}\" stroke-width=\"2\" "
      "fill=\"{}\"/>\n",
      x, y, color, hollow ? "none" : color);
}

double LogAxis::operator()(double value) const {
  return at_low + (at_high - at_low) * std::log(value / low) / std::log(high / low);
}

}  // namespace pararnn::svg
