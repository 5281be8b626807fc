// Pieces of SVG text that plots are made of.
#pragma once

#include <string>
#include <string_view>

namespace pararnn::svg {

/// Told apart in grey and by the colour-blind as well (Okabe and Ito 2008), darkened or lightened
/// so that each stands out on white and on black.
inline constexpr const char* kColors[] = {"#d55e00", "#0080c8", "#009e73", "#b07aa1",
                                          "#c79a00", "#56a0d0", "#8a8a8a"};

/// A drawing by itself, of so many pixels, legible on light and dark pages: texts, and lines of the
/// class grid.
std::string document(double width, double height, std::string_view content);

/// Text for the inside of an element or an attribute, of SVG or HTML.
std::string escaped(std::string_view text);

/// `words` are escaped; `anchor` is start, middle or end; `attributes` go into the element.
std::string text(double x, double y, std::string_view anchor, std::string_view words,
                 std::string_view attributes = "");

std::string line(double x1, double y1, double x2, double y2, std::string_view attributes);

/// A dot.
std::string marker(double x, double y, std::string_view color, bool hollow = false);

/// A logarithmic axis: where `low` and `high` lie in the drawing.
struct LogAxis {
  double low, high, at_low, at_high;

  double operator()(double value) const;
};

}  // namespace pararnn::svg
