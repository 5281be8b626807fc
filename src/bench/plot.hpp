// A plot of series of points, as SVG text.
#pragma once

#include <string>
#include <vector>

namespace pararnn::bench {

struct PlotPoint {
  double x, y;
  bool extrapolated = false;  // drawn hollow, with a dashed line to it
};

struct PlotSeries {
  std::string name;
  std::vector<PlotPoint> points;
  bool markers = true;  // a dot for each point
};

enum class Scale { kLinear, kLogarithmic };

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  Scale x_scale = Scale::kLogarithmic, y_scale = Scale::kLogarithmic;
  bool y_from_zero = false;  // where y is linear
};

/// Of a plot, in pixels.
inline constexpr double kPlotWidth = 860, kPlotHeight = 480;

/// Logarithmic axes go from power to power of ten (y; from a 1, 2 or 5 to another where that is
/// less than two) and two (x) around the points, linear ones from a round number to another; the
/// legend is on the right. Legible on light and dark pages. Throws Error if there is no point, one
/// that is not finite, or one that is not positive on a logarithmic axis.
std::string plot_svg(const Plot& plot);

/// What is in such a plot, for a drawing with more than that.
std::string plot_content(const Plot& plot);

}  // namespace pararnn::bench
