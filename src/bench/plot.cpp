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

constexpr double kBaseOfX = 2, kBaseOfY = 10;
constexpr double kLeft = 80, kRight = 620, kTop = 44, kBottom = 420;  // of the area of the lines

using svg::line, svg::marker, svg::text;

/// An axis, and the values that its grid shows.
struct Axis {
  Scale scale;
  double low, high, at_low, at_high;
  std::vector<double> ticks;

  double operator()(double value) const {
    if (scale == Scale::kLogarithmic) return svg::LogAxis{low, high, at_low, at_high}(value);
    return at_low + (at_high - at_low) * (value - low) / (high - low);
  }
};

/// From power to power of `base`; where that is ten and two of them hold all, from a multiple of
/// 1, 2 or 5 times a power to another.
Axis logarithmic_axis(double low, double high, double base) {
  const bool between = base == 10 && high < 100 * low;
  const std::vector<double> factors = between ? std::vector{1.0, 2.0, 5.0} : std::vector{1.0};
  const auto exponent = [&](double value) { return std::floor(std::log(value) / std::log(base)); };
  std::vector<double> ticks;
  for (double i = exponent(low) - 1; i <= exponent(high) + 2; ++i) {
    for (const double factor : factors) ticks.push_back(factor * std::pow(base, i));
  }
  // A hair of room, so that a tick holds itself.
  constexpr double kHair = 1e-9;
  while (ticks.size() > 2 && ticks[1] <= low * (1 + kHair)) ticks.erase(ticks.begin());
  while (ticks.size() > 2 && ticks.end()[-2] >= high * (1 - kHair)) ticks.pop_back();
  return {Scale::kLogarithmic, ticks.front(), ticks.back(), 0, 0, ticks};
}

/// From multiple to multiple of 1, 2 or 5 times a power of ten, about `most` of them.
Axis linear_axis(double low, double high, int most) {
  if (high == low) high = low + std::max(std::abs(low), 1.0);
  const double unit = std::pow(10, std::floor(std::log10((high - low) / most)));
  double step = unit;
  for (const double factor : {1, 2, 5, 10}) {
    step = factor * unit;
    if ((high - low) / step <= most) break;
  }
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  Axis axis{Scale::kLinear, first * step, last * step, 0, 0, {}};
  for (double i = first; i <= last; ++i) axis.ticks.push_back(i * step);
  return axis;
}

/// Around all points.
Axis axis_around(const Plot& plot, double PlotPoint::*coordinate, Scale scale, double base,
                 int most_ticks, double at_low, double at_high) {
  const bool logarithmic = scale == Scale::kLogarithmic;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  if (plot.y_from_zero && coordinate == &PlotPoint::y) low = 0;
  for (const PlotSeries& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      const double value = point.*coordinate;
      require(std::isfinite(value) && (value > 0 || !logarithmic),
              "the plot has {} in the series '{}', but {} axis takes {} numbers", value,
              series.name, logarithmic ? "a logarithmic" : "an",
              logarithmic ? "positive" : "finite");
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  require(low <= high, "there is nothing to plot");
  Axis axis = logarithmic ? logarithmic_axis(low, high, base) : linear_axis(low, high, most_ticks);
  axis.at_low = at_low;
  axis.at_high = at_high;
  return axis;
}

std::string number(double value, Scale scale) {
  const bool binary = scale == Scale::kLogarithmic;
  const double kilo = binary ? 1024 : 1000;
  for (const auto& [unit, name] :
       {std::pair{kilo * kilo * kilo, "G"}, {kilo * kilo, "M"}, {kilo, "k"}}) {
    if (value >= unit && (!binary || std::fmod(value, unit) == 0)) {
      return fmt::format("{:g}{}", value / unit, name);
    }
  }
  return fmt::format("{:g}", value);
}

std::string grid(const Plot& plot, const Axis& x, const Axis& y) {
  std::string result;
  for (const double value : x.ticks) {
    const double at = x(value);
    result += line(at, kTop, at, kBottom, "class=\"grid\"");
    result += text(at, kBottom + 20, "middle", number(value, x.scale));
  }
  for (const double value : y.ticks) {
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

std::string curve(const PlotSeries& series, const Axis& x, const Axis& y,
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
    if (series.markers) result += marker(at_x, at_y, color, point.extrapolated);
    before = &point;
  }
  return result;
}

}  // namespace

std::string plot_content(const Plot& plot) {
  const Axis x = axis_around(plot, &PlotPoint::x, plot.x_scale, kBaseOfX, 8, kLeft, kRight);
  const Axis y = axis_around(plot, &PlotPoint::y, plot.y_scale, kBaseOfY, 10, kBottom, kTop);
  std::string result = grid(plot, x, y);
  bool extrapolated = false;
  double legend = kTop + 8;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const std::string color = svg::kColors[i % std::size(svg::kColors)];
    std::vector<PlotPoint> points = plot.series[i].points;
    std::ranges::sort(points, {}, &PlotPoint::x);
    result += curve({plot.series[i].name, points, plot.series[i].markers}, x, y, color);
    result += marker(kRight + 24, legend - 4, color, false);
    result += text(kRight + 36, legend, "start", plot.series[i].name);
    legend += 24;
    extrapolated = extrapolated || std::ranges::any_of(points, &PlotPoint::extrapolated);
  }
  if (extrapolated) {
    result += text(kRight + 18, legend + 6, "start", "hollow: from a shorter sequence");
  }
  return result;
}

std::string plot_svg(const Plot& plot) {
  return svg::document(kPlotWidth, kPlotHeight, plot_content(plot));
}

}  // namespace pararnn::bench
