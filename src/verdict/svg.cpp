#include "verdict/svg.hpp"

#include <fmt/format.h>

#include <cmath>

namespace pararnn::svg {

std::string document(double width, double height, std::string_view content) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" "
      "height=\"{1:g}\" font-family=\"sans-serif\" font-size=\"13\">\n"
      "<style>text{{fill:#24292f}}.title{{font-weight:bold}}.grid{{stroke:#8888;stroke-width:.5}}"
      "@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}}}</style>\n{2}</svg>\n",
      width, height, content);
}

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
