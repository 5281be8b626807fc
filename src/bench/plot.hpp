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
};

/// Logarithmic axes go from power to power of ten (y) and two (x) around the points, linear ones
/// from a round number to another; the legend is on the right. Legible on light and dark pages.
/// Throws Error if there is no point, one that is not finite, or one that is not positive on a
/// logarithmic axis.
std::string plot_svg(const Plot& plot);

}  // namespace pararnn::bench
