#include "bench/training_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.hpp"
#include "train/profile.hpp"
#include "verdict/svg.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;

constexpr double kPlotWidth = 860, kBarLeft = 190, kBarRight = 660, kBarTop = 44;
constexpr double kBarHeight = 22, kBarStep = 34, kLegendStep = 94;

std::string label_of(const json& m) {
  return fmt::format("{} {} B{} T{}", m["size"].get<std::string>(), m["cell"].get<std::string>(),
                     m["batch"].get<int64_t>(), m["steps"].get<int64_t>());
}

/// The parts of all measurements, in the order in which they first come.
std::vector<std::string> parts_of(const json& training) {
  std::vector<std::string> parts;
  for (const json& m : training) {
    for (const json& part : m["profile"]["parts"]) {
      const auto name = part["name"].get<std::string>();
      if (name != train::kIdle && std::ranges::find(parts, name) == parts.end())
        parts.push_back(name);
    }
  }
  return parts;
}

double seconds_of(const json& m, const std::string& part) {
  for (const json& p : m["profile"]["parts"]) {
    if (p["name"] == part) return p["seconds"].get<double>();
  }
  return 0;
}

std::string box(double x, double y, double width, double height, const char* color) {
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n", x, y,
      width, height, color);
}

}  // namespace

std::string training_parts_svg(const json& report) {
  const json training = report.value("training", json::array());
  require(!training.empty(), "there is nothing to plot: the report has no measurement of training");
  const std::vector<std::string> parts = parts_of(training);
  const double bottom = kBarTop + kBarStep * double(training.size());
  std::string result =
      svg::text(20, 24, "start", "Where the time of a training step goes", "class=\"title\"");
  double y = kBarTop;
  for (const json& m : training) {
    // A profile slows the host down, so the time in which nothing runs is not the profile's.
    double busy = 0;
    for (const std::string& part : parts) busy += seconds_of(m, part);
    const double whole = std::max(busy, 1e-3 * m["milliseconds"].get<double>());
    double x = kBarLeft;
    for (size_t i = 0; i < parts.size(); ++i) {
      const double width = (kBarRight - kBarLeft) * seconds_of(m, parts[i]) / whole;
      result += box(x, y, width, kBarHeight, svg::kColors[i % std::size(svg::kColors)]);
      x += width;
    }
    result += svg::text(kBarLeft - 8, y + 16, "end", label_of(m));
    result += svg::text(kBarRight + 8, y + 16, "start",
                        fmt::format("{:.0f} tokens/s", m["tokens_per_second"].get<double>()));
    y += kBarStep;
  }
  double x = 20;
  for (size_t i = 0; i < parts.size(); ++i, x += kLegendStep) {
    result += box(x, bottom + 8, 12, 12, svg::kColors[i % std::size(svg::kColors)]);
    result += svg::text(x + 17, bottom + 19, "start", parts[i]);
  }
  result += svg::text(x, bottom + 19, "start", "rest: no kernel");
  return svg::document(kPlotWidth, bottom + 40, result);
}

}  // namespace pararnn::bench
