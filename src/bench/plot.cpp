#include "bench/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/error.hpp"
#include "verdict/svg.hpp"

namespace pararnn::bench {
namespace {

constexpr double kWidth = 860, kHeight = 480;
constexpr double kBaseOfX = 2, kBaseOfY = 10;
constexpr double kLeft = 80, kRight = 620, kTop = 44, kBottom = 420;  // of the area of the lines

using svg::line, svg::marker, svg::text;

/// From the powers of `base` around all points.
svg::LogAxis axis_around(const Plot& plot, double PlotPoint::*coordinate, double base,
                         double at_low, double at_high) {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  for (const PlotSeries& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      const double value = point.*coordinate;
      require(value > 0 && std::isfinite(value),
              "the plot has {} in the series '{}', but a logarithmic axis takes positive numbers",
              value, series.name);
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  require(high > 0, "there is nothing to plot");
  const auto power = [&](double exponent) { return std::pow(base, exponent); };
  // A hair of room, so that a power of the base is its own floor and ceiling.
  const double first = std::floor(std::log(low) / std::log(base) + 1e-9);
  const double last = std::ceil(std::log(high) / std::log(base) - 1e-9);
  return {power(first), power(std::max(last, first + 1)), at_low, at_high};
}

std::string number(double value) {
  for (const auto& [unit, name] : {std::pair{1048576.0, "M"}, {1024.0, "k"}}) {
    if (value >= unit && std::fmod(value, unit) == 0) {
      return fmt::format("{:g}{}", value / unit, name);
    }
  }
  return fmt::format("{:g}", value);
}

std::string grid(const Plot& plot, const svg::LogAxis& x, const svg::LogAxis& y) {
  std::string result;
  for (double value = x.low; value <= x.high * 1.001; value *= kBaseOfX) {
    const double at = x(value);
    result += line(at, kTop, at, kBottom, "class=\"grid\"");
    result += text(at, kBottom + 20, "middle", number(value));
  }
  for (double value = y.low; value <= y.high * 1.001; value *= kBaseOfY) {
    const double at = y(value);
    result += line(kLeft, at, kRight, at, "class=\"grid\"");
    result += text(kLeft - 8, at + 4, "end", fmt::format("{:g}", value));
  }
  result += text((kLeft + kRight) / 2, kBottom + 44, "middle", plot.x_label);
  const double middle = (kTop + kBottom) / 2;
  result += text(20, middle, "middle", plot.y_label,
                 fmt::format("transform=\"rotate(-90 20 {:.1f})\"", middle));
  return result + text(kLeft, 24, "start", plot.title, "class=\"title\"");
}

std::string curve(const PlotSeries& series, const svg::LogAxis& x, const svg::LogAxis& y,
                  const std::string& color) {
  std::string result;
  const PlotPoint* before = nullptr;
  for (const PlotPoint& point : series.points) {
    const double at_x = x(point.x), at_y = y(point.y);
    if (before) {
      result += line(x(before->x), y(before->y), at_x, at_y,
                     fmt::format("stroke=\"{}\" stroke-width=\"2\"{}", color,
                                 point.extrapolated ? " stroke-dasharray=\"5 4\"" : ""));
    }
    result += marker(at_x, at_y, color, point.extrapolated);
    before = &point;
  }
  return result;
}

}  // namespace

std::string plot_svg(const Plot& plot) {
  const svg::LogAxis x = axis_around(plot, &PlotPoint::x, kBaseOfX, kLeft, kRight);
  const svg::LogAxis y = axis_around(plot, &PlotPoint::y, kBaseOfY, kBottom, kTop);
  std::string result = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" "
      "height=\"{1:g}\" font-family=\"sans-serif\" font-size=\"13\">\n",
      kWidth, kHeight);
  result +=
      "<style>text{fill:#24292f}.title{font-weight:bold}.grid{stroke:#8888;stroke-width:.5}"
      "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>\n";
  result += grid(plot, x, y);
  bool extrapolated = false;
  double legend = kTop + 8;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const std::string color = svg::kColors[i % std::size(svg::kColors)];
    std::vector<PlotPoint> points = plot.series[i].points;
    std::ranges::sort(points, {}, &PlotPoint::x);
    result += curve({plot.series[i].name, points}, x, y, color);
    result += marker(kRight + 24, legend - 4, color, false);
    result += text(kRight + 36, legend, "start", plot.series[i].name);
    legend += 24;
    extrapolated = extrapolated || std::ranges::any_of(points, &PlotPoint::extrapolated);
  }
  if (extrapolated) {
    result += text(kRight + 18, legend + 6, "start", "hollow: from a shorter sequence");
  }
  return result + "</svg>\n";
}

}  // namespace pararnn::bench
