#include "verdict/verdict_plots.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "verdict/svg.hpp"
#include "verdict/verdict_words.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

constexpr double kWidth = 440, kHeight = 300;
constexpr double kLeft = 58, kRight = 420, kTop = 14, kBottom = 252;  // of the area of the lines
constexpr const char* kGrid = "class=\"grid\"";
constexpr const char* kMark = "class=\"mark\"";

std::string drawing(double height, const std::string& label, const std::string& content) {
  return fmt::format("<svg viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
                     kWidth, height, svg::escaped(label), content);
}

std::string x_title(double y, const std::string& words) {
  return svg::text((kLeft + kRight) / 2, y, "middle", words, "class=\"title\"");
}

std::string y_title(const std::string& words) {
  const double middle = (kTop + kBottom) / 2;
  return svg::text(12, middle, "middle", words,
                   fmt::format("class=\"title\" transform=\"rotate(-90 12 {:.1f})\"", middle));
}

/// Words among the lines, set off from them; to be drawn last.
std::string label(double x, double y, const char* anchor, const char* words) {
  return svg::text(x, y, anchor, words, "class=\"label\"");
}

std::string polyline(const std::vector<std::pair<double, double>>& points, const char* color,
                     const char* more) {
  std::string at;
  for (const auto& [x, y] : points) at += fmt::format("{:.1f},{:.1f} ", x, y);
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" {}/>\n", at, color, more);
}

const char* color_of(size_t i) { return svg::kColors[i % std::size(svg::kColors)]; }

/// A table of numbers on coloured fields: weights downwards, gate biases across. `strength` is how
/// strongly a field is coloured, from 0 to 1, negative where it alarms.
std::string heat_map(const std::string& label, const json& section, const json& numbers,
                     const std::function<std::string(double)>& format,
                     const std::function<double(double)>& strength) {
  const json &scales = section.at("weight_scales"), &biases = section.at("gate_biases");
  constexpr double kFirst = 66, kRow = 40, kTopRow = 8;
  const double width = (kRight + 14 - kFirst) / double(biases.size());
  std::string content;
  for (size_t i = 0; i < scales.size(); ++i) {
    const double y = kTopRow + kRow * double(i);
    content += svg::text(kFirst - 8, y + kRow / 2 + 4, "end",
                         fmt::format("±{:g}", scales[i].get<double>()));
    for (size_t j = 0; j < biases.size(); ++j) {
      const double number = numbers[i][j], x = kFirst + width * double(j), s = strength(number);
      content += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"4\" "
          "fill=\"var({})\" fill-opacity=\"{:.2f}\"/>\n",
          x + 1, y + 1, width - 2, kRow - 2, s < 0 ? "--alarm" : "--calm", std::abs(s));
      content += svg::text(x + width / 2, y + kRow / 2 + 4, "middle", format(number));
    }
  }
  const double below = kTopRow + kRow * double(scales.size());
  for (size_t j = 0; j < biases.size(); ++j) {
    content += svg::text(
        kFirst + width * (double(j) + 0.5), below + 18, "middle",
        fmt::format("{}{:g}", biases[j] < 0 ? "−" : "", std::abs(biases[j].get<double>())));
  }
  content +=
      svg::text((kFirst + kRight + 14) / 2, below + 40, "middle", "gate bias", "class=\"title\"");
  const double middle = (kTopRow + below) / 2;
  content += svg::text(12, middle, "middle", "recurrent weights",
                       fmt::format("class=\"title\" transform=\"rotate(-90 12 {:.1f})\"", middle));
  return drawing(below + 50, label, content);
}

}  // namespace

VerdictPlot forgetting_plot(const json& forgetting) {
  constexpr double kLowest = 1e-10, kHighest = 100, kTolerance = 1e-6;
  const json& regimes = forgetting.at("regimes");
  const double longest = regimes.front().at("burn_in").back();
  const svg::LogAxis x{1, longest, kLeft, kRight}, y{kLowest, kHighest, kBottom, kTop};
  std::string content = fmt::format(
      "<clipPath id=\"area\"><rect x=\"{:g}\" y=\"{:g}\" width=\"{:g}\" "
      "height=\"{:g}\"/></clipPath>\n",
      kLeft, kTop, kRight - kLeft, kBottom - kTop);
  for (double value = 1; value <= longest; value *= 4) {
    content += svg::line(x(value), kTop, x(value), kBottom, kGrid);
    content += svg::text(x(value), kBottom + 18, "middle", fmt::format("{:g}", value));
  }
  for (int power = -10; power <= 2; power += 2) {
    const double at = y(std::pow(10.0, power));
    content += svg::line(kLeft, at, kRight, at, kGrid);
    content +=
        svg::text(kLeft - 6, at + 4, "end",
                  power == 0 ? "1" : fmt::format("1e{}{}", power < 0 ? "−" : "", std::abs(power)));
  }
  const double burn_in = x(forgetting.at("default_burn_in").get<double>());
  content += svg::line(burn_in, kTop, burn_in, kBottom, kMark);
  content += svg::line(kLeft, y(kTolerance), kRight, y(kTolerance), kMark);
  content += x_title(kBottom + 42, "burn-in, steps") + y_title("mismatch");
  VerdictPlot plot;
  content += "<g clip-path=\"url(#area)\">\n";
  for (const json& regime : regimes) {
    const char* color = color_of(plot.legend.size());
    for (const char* of : {"median", "worst"}) {
      std::vector<std::pair<double, double>> points;
      for (size_t i = 0; i < regime.at("burn_in").size(); ++i) {
        const double mismatch = regime.at(of)[i];
        points.emplace_back(x(regime["burn_in"][i]), y(std::clamp(mismatch, 1e-18, 1e6)));
      }
      content +=
          polyline(points, color, of[0] == 'w' ? "stroke-width=\"2.2\"" : "class=\"median\"");
    }
    plot.legend.push_back(regime_words(regime));
  }
  content += "</g>\n" + label(burn_in + 4, kTop + 12, "start", "default burn-in") +
             label(kLeft + 4, y(kTolerance) - 5, "start", "tolerance");
  plot.svg = drawing(kHeight, "Mismatch against burn-in", content);
  return plot;
}

VerdictPlot newton_plot(const json& newton) {
  const int most = newton.at("most"), in_engine = newton.at("most_in_engine");
  // Corrections on an axis of log(1 + k); above it a place for "more".
  const double highest = std::log1p(most), more = highest * 1.14, top = highest * 1.2;
  const auto y_at = [&](double of) { return kBottom - 8 - (kBottom - 8 - kTop) * of / top; };
  const auto y = [&](double corrections) { return y_at(std::log1p(corrections)); };
  const json& chunks = newton.at("runs").front().at("chunks");
  const svg::LogAxis x{chunks.front().at("chunk"), chunks.back().at("chunk"), kLeft + 18,
                       kRight - 18};
  std::string content;
  for (const json& chunk : chunks) {
    const double at = x(chunk.at("chunk"));
    content += svg::line(at, kTop, at, kBottom, kGrid);
    content += svg::text(at, kBottom + 18, "middle", std::to_string(chunk["chunk"].get<int64_t>()));
  }
  for (int k = 0; k <= most; k = k == 0 ? 1 : 2 * k) {
    content += svg::line(kLeft, y(k), kRight, y(k), kGrid);
    content += svg::text(kLeft - 6, y(k) + 4, "end", std::to_string(k));
  }
  content += svg::text(kLeft - 6, y_at(more) + 4, "end", "more");
  content += svg::line(kLeft, y(in_engine), kRight, y(in_engine), kMark);
  std::string labels = label(kRight, y(in_engine) - 5, "end", "most in the engine");
  // As many corrections as boundaries: the chunks have been walked in order.
  std::vector<std::pair<double, double>> in_order;
  for (const json& chunk : chunks) {
    const double boundaries = chunk.at("boundaries");
    if (boundaries <= most) in_order.emplace_back(x(chunk.at("chunk")), y(boundaries));
  }
  if (in_order.size() > 1) {
    content += polyline(in_order, "var(--faint)", "stroke-width=\"1.5\" stroke-dasharray=\"2 3\"");
    labels += label(in_order.front().first - 6, in_order.front().second - 2, "end",
                    "as many as boundaries");
  }
  content += x_title(kBottom + 42, "chunk length, steps") + y_title("corrections");
  // Equal numbers are common: the lines stand a little apart.
  const json& runs = newton.at("runs");
  VerdictPlot plot;
  std::vector<const json*> shown;
  for (const json& run : runs) {
    if (run.at("arithmetic") == "float32" ||
        (run.at("burn_in") == 0 && run.at("gate_bias") == 0 && run.at("weight_scale") == 1)) {
      shown.push_back(&run);
    }
  }
  for (const json* run : shown) {
    const char* color = color_of(plot.legend.size());
    const double apart = 7 * (double(plot.legend.size()) - double(shown.size() - 1) / 2);
    std::vector<std::pair<double, double>> points;
    std::string markers;
    for (const json& chunk : run->at("chunks")) {
      const json& worst = chunk.at("worst");
      points.emplace_back(x(chunk.at("chunk")) + apart,
                          worst.is_null() ? y_at(more) : y(worst.get<double>()));
      markers += svg::marker(points.back().first, points.back().second, color, worst.is_null());
    }
    content += polyline(points, color, "stroke-width=\"1.2\" stroke-opacity=\"0.6\"") + markers;
    plot.legend.push_back(
        fmt::format("{}, burn-in {}", regime_words(*run), run->at("burn_in").get<int64_t>()));
  }
  plot.svg = drawing(kHeight, "Newton corrections against chunk length", content + labels);
  return plot;
}

VerdictPlot lyapunov_plot(const json& lyapunov) {
  // The colour says how fast: from a thousandth a step, faint, to e-fold a step.
  const auto strength = [](double exponent) {
    const double speed = std::log10(1 + 1000 * std::abs(exponent)) / 3;
    return std::copysign(0.08 + 0.62 * std::min(speed, 1.0), exponent > 1e-3 ? -1.0 : 1.0);
  };
  const auto format = [](double exponent) {
    if (std::abs(exponent) < 5e-4) return std::string("0");
    if (exponent < -9e2 || exponent > 9e2) return std::string(exponent < 0 ? "−∞" : "∞");
    return fmt::format("{}{:.{}f}", exponent < 0 ? "−" : "+", std::abs(exponent),
                       std::abs(exponent) < 9.995 ? 3 : 1);
  };
  return {
      heat_map("Largest Lyapunov exponents", lyapunov, lyapunov.at("largest"), format, strength),
      {}};
}

VerdictPlot deviation_plot(const json& engine, const json& device) {
  const auto strength = [](double of_permitted) {
    return of_permitted > 1 ? -0.7 : 0.06 + 0.3 * of_permitted;
  };
  const auto format = [](double of_permitted) {
    return of_permitted > 1000 ? std::string("wrong") : fmt::format("{:.2f}", of_permitted);
  };
  return {heat_map("Deviation from the plain loop", engine, device.at("grid"), format, strength),
          {}};
}

VerdictPlot cost_plot(const json& cost) {
  constexpr double kBarLeft = 4, kMostWidth = 250, kBar = 18, kGap = 46;
  struct Bar {
    std::string label;
    double own, of_gru;
  };
  std::vector<Bar> bars;
  for (const json& device : cost.at("devices")) {
    for (const char* pass : {"forward", "backward"}) {
      const json& times = device.at(pass);
      bars.push_back({fmt::format("{}, {}, {}", device.at("device").get<std::string>(),
                                  device.at("dtype").get<std::string>(), pass),
                      times.at("nanoseconds_a_step_and_channel"), times.at("of_gru")});
    }
  }
  double largest = 1;
  for (const Bar& bar : bars) largest = std::max(largest, bar.of_gru);
  const double unit = kMostWidth / largest;
  std::string content;
  double y = 16;
  for (const Bar& bar : bars) {
    content += svg::text(kBarLeft, y, "start", bar.label);
    content += fmt::format(
        "<rect x=\"{:g}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:g}\" rx=\"3\" fill=\"{}\"/>\n",
        kBarLeft, y + 6, std::max(unit * bar.of_gru, 1.0), kBar, svg::kColors[1]);
    content += svg::text(kBarLeft + unit * std::max(bar.of_gru, 1.0) + 8, y + 6 + kBar / 2 + 4,
                         "start", fmt::format("{:.2f} × gru, {:.3g} ns", bar.of_gru, bar.own));
    content += svg::line(kBarLeft + unit, y + 3, kBarLeft + unit, y + 9 + kBar,
                         "stroke=\"var(--ink)\" stroke-width=\"2\"");
    y += kGap;
  }
  content += svg::text(kBarLeft + unit, y - 8, "middle", "gru");
  return {drawing(y + 4, "Time of a step beside gru", content), {}};
}

}  // namespace pararnn
