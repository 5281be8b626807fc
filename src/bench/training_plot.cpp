#include "bench/training_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/error.hpp"
#include "base/text_width.hpp"
#include "bench/plot.hpp"
#include "bench/train.hpp"
#include "train/profile.hpp"
#include "verdict/svg.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;

constexpr double kMargin = 20, kBarRight = 660, kBarTop = 44, kGap = 8;
constexpr double kBarHeight = 22, kBarStep = 34, kLegendStep = 94;
/// Of a label, at most, in the plot's font.
constexpr double kLetterWidth = 7.2;

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

/// Tokens/s against length, of the models that were measured at two lengths or more; without a
/// series if there is none.
Plot speed_against_length(const json& training) {
  struct Model {
    std::string size, mixer;
    std::map<int64_t, double> speeds;  // by length; of one that was measured twice, the last
  };
  std::vector<Model> models;  // in the order in which they come
  for (const json& m : training) {
    const Model named{m["size"], mixer_label(m["mixer"], m.value("cell", "")), {}};
    auto model = std::ranges::find_if(models, [&](const Model& known) {
      return known.size == named.size && known.mixer == named.mixer;
    });
    if (model == models.end()) model = models.insert(model, named);
    model->speeds[m["steps"]] = m["tokens_per_second"];
  }
  std::erase_if(models, [](const Model& model) { return model.speeds.size() < 2; });
  const bool one_size = std::ranges::all_of(
      models, [&](const Model& model) { return model.size == models.front().size; });
  constexpr double kThousand = 1000;
  Plot plot{.title = "How fast models train" +
                     (one_size && !models.empty() ? ", " + models.front().size : std::string()),
            .x_label = "tokens in a sequence",
            .y_label = "thousand tokens/s",
            .series = {},
            .y_scale = Scale::kLinear,
            .y_from_zero = true};
  for (const Model& model : models) {
    plot.series.push_back({one_size ? model.mixer : model.size + " " + model.mixer, {}});
    for (const auto& [length, speed] : model.speeds) {
      plot.series.back().points.push_back({double(length), speed / kThousand});
    }
  }
  return plot;
}

/// The bars, and the height that they take.
std::pair<std::string, double> bars_of_parts(const json& training) {
  const std::vector<std::string> parts = parts_of(training);
  const double bottom = kBarTop + kBarStep * double(training.size());
  std::string result =
      svg::text(kMargin, 24, "start", "Where the time of a training step goes", "class=\"title\"");
  size_t letters = 0;
  for (const json& m : training) letters = std::max(letters, columns_of(training_label(m)));
  const double left = kMargin + kLetterWidth * double(letters) + kGap;
  double y = kBarTop;
  for (const json& m : training) {
    // A profile slows the host down, so the time in which nothing runs is not the profile's.
    double busy = 0;
    for (const std::string& part : parts) busy += seconds_of(m, part);
    const double whole = std::max(busy, 1e-3 * m["milliseconds"].get<double>());
    double x = left;
    for (size_t i = 0; i < parts.size(); ++i) {
      const double width = (kBarRight - left) * seconds_of(m, parts[i]) / whole;
      result += box(x, y, width, kBarHeight, svg::kColors[i % std::size(svg::kColors)]);
      x += width;
    }
    result += svg::text(left - kGap, y + 16, "end", training_label(m));
    result += svg::text(kBarRight + kGap, y + 16, "start",
                        fmt::format("{:.0f} tokens/s", m["tokens_per_second"].get<double>()));
    y += kBarStep;
  }
  double x = kMargin;
  for (size_t i = 0; i < parts.size(); ++i, x += kLegendStep) {
    result += box(x, bottom + 8, 12, 12, svg::kColors[i % std::size(svg::kColors)]);
    result += svg::text(x + 17, bottom + 19, "start", parts[i]);
  }
  result += svg::text(x, bottom + 19, "start", "rest: no kernel");
  return {result, bottom + 40};
}

}  // namespace

std::string training_svg(const json& report) {
  const json training = report.value("training", json::array());
  require(!training.empty(), "there is nothing to plot: the report has no measurement of training");
  const auto [bars, height] = bars_of_parts(training);
  const Plot speed = speed_against_length(training);
  if (speed.series.empty()) return svg::document(kPlotWidth, height, bars);
  return svg::document(kPlotWidth, kPlotHeight + height,
                       fmt::format("{}<g transform=\"translate(0 {})\">\n{}</g>\n",
                                   plot_content(speed), kPlotHeight, bars));
}

}  // namespace pararnn::bench
