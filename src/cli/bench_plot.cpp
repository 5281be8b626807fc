#include "cli/bench_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/error.hpp"

namespace pararnn::cli {
namespace {

constexpr double kWidth = 860, kHeight = 480;
constexpr double kLeft = 80, kRight = 620, kTop = 44, kBottom = 420;  // of the area of the lines

// Told apart in grey and by the colour-blind as well (Okabe and Ito 2008), darkened or lightened
// so that each stands out on white and on black.
constexpr const char* kColors[] = {"#d55e00", "#0080c8", "#009e73", "#b07aa1",
                                   "#c79a00", "#56a0d0", "#8a8a8a"};

struct Axis {
  double low, high, base;

  double share(double value) const { return std::log(value / low) / std::log(high / low); }
};

Axis axis_around(const Plot& plot, double PlotPoint::*coordinate, double base) {
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
  return {power(first), power(std::max(last, first + 1)), base};
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    result += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return result;
}

std::string number(double value) {
  for (const auto& [unit, name] : {std::pair{1048576.0, "M"}, {1024.0, "k"}}) {
    if (value >= unit && std::fmod(value, unit) == 0) {
      return fmt::format("{:g}{}", value / unit, name);
    }
  }
  return fmt::format("{:g}", value);
}

double horizontal(const Axis& axis, double value) {
  return kLeft + (kRight - kLeft) * axis.share(value);
}
double vertical(const Axis& axis, double value) {
  return kBottom - (kBottom - kTop) * axis.share(value);
}

std::string text(double x, double y, const char* anchor, const std::string& words,
                 const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                     anchor, more, escaped(words));
}

std::string line(double x1, double y1, double x2, double y2, const std::string& attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1,
                     x2, y2, attributes);
}

std::string marker(double x, double y, const std::string& color, bool hollow) {
  return fmt::format(
      "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" stroke=\"{}\" stroke-width=\"2\" "
      "fill=\"{}\"/>\n",
      x, y, color, hollow ? "none" : color);
}

std::string grid(const Plot& plot, const Axis& x, const Axis& y) {
  std::string result;
  for (double value = x.low; value <= x.high * 1.001; value *= x.base) {
    const double at = horizontal(x, value);
    result += line(at, kTop, at, kBottom, "class=\"grid\"");
    result += text(at, kBottom + 20, "middle", number(value));
  }
  for (double value = y.low; value <= y.high * 1.001; value *= y.base) {
    const double at = vertical(y, value);
    result += line(kLeft, at, kRight, at, "class=\"grid\"");
    result += text(kLeft - 8, at + 4, "end", fmt::format("{:g}", value));
  }
  result += text((kLeft + kRight) / 2, kBottom + 44, "middle", plot.x_label);
  const double middle = (kTop + kBottom) / 2;
  result += text(20, middle, "middle", plot.y_label,
                 fmt::format(" transform=\"rotate(-90 20 {:.1f})\"", middle).c_str());
  return result + text(kLeft, 24, "start", plot.title, " class=\"title\"");
}

std::string curve(const PlotSeries& series, const Axis& x, const Axis& y,
                  const std::string& color) {
  std::string result;
  const PlotPoint* before = nullptr;
  for (const PlotPoint& point : series.points) {
    const double at_x = horizontal(x, point.x), at_y = vertical(y, point.y);
    if (before) {
      result += line(horizontal(x, before->x), vertical(y, before->y), at_x, at_y,
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
  const Axis x = axis_around(plot, &PlotPoint::x, 2), y = axis_around(plot, &PlotPoint::y, 10);
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
    const std::string color = kColors[i % std::size(kColors)];
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

}  // namespace pararnn::cli
