// A plot with two logarithmic axes, as SVG text.
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
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
};

/// Axes from the powers of ten (y) and two (x) around the points; the legend on the right. Legible
/// on light and dark pages. Throws Error if there is no point, or one that is not positive.
std::string plot_svg(const Plot& plot);

}  // namespace pararnn::bench
