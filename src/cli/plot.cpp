#include "cli/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "bench/plot.hpp"
#include "train/checkpoint.hpp"
#include "train/run_log.hpp"

namespace pararnn::cli {
namespace {

using nlohmann::json;

struct PlotArguments {
  std::vector<std::string> runs;
  std::string x = "tokens", y = "loss", out = "curves.svg";
  bool held_out = false, log_x = false, log_y = false;
};

/// More points than this would lie on top of one another: neighbours are replaced by their mean.
constexpr size_t kMostPoints = 400;

const std::map<std::string, std::string> kMeaningOfX = {
    {"steps", "steps"}, {"tokens", "tokens"}, {"minutes", "minutes of training"}};
const std::map<std::string, std::string> kMeaningOfY = {{"loss", "loss, nats a token"},
                                                        {"bits", "bits a token"},
                                                        {"bits_per_byte", "bits a byte"},
                                                        {"perplexity", "perplexity"},
                                                        {"gradient_norm", "norm of the gradient"},
                                                        {"learning_rate", "learning rate"},
                                                        {"tokens_per_second", "tokens/s"}};

std::vector<std::string> keys_of(const std::map<std::string, std::string>& meanings) {
  std::vector<std::string> keys;
  for (const auto& [key, meaning] : meanings) keys.push_back(key);
  return keys;
}

/// What the curve `y` shows of an event; NaN if the event does not tell.
double value_of(const json& event, const std::string& y) {
  const std::string key = y == "bits" || y == "perplexity" ? "loss" : y;
  if (!event.contains(key) || !event[key].is_number()) return std::nan("");
  const double value = event[key];
  if (y == "bits") return value / std::numbers::ln2;
  if (y == "perplexity") return std::exp(value);
  return value;
}

std::vector<bench::PlotPoint> thinned(const std::vector<bench::PlotPoint>& points) {
  const size_t each = (points.size() + kMostPoints - 1) / kMostPoints;
  if (each <= 1) return points;
  std::vector<bench::PlotPoint> result;
  for (size_t first = 0; first < points.size(); first += each) {
    const size_t last = std::min(first + each, points.size());
    bench::PlotPoint mean{0, 0};
    for (size_t i = first; i < last; ++i) mean.x += points[i].x, mean.y += points[i].y;
    result.push_back({mean.x / double(last - first), mean.y / double(last - first)});
  }
  return result;
}

/// The curve of training of a run where it has one, and that of its validation.
std::vector<bench::PlotSeries> curves_of(const std::string& run, const PlotArguments& arguments) {
  const std::filesystem::path path(run);
  const std::vector<json> events =
      train::read_run_log(std::filesystem::is_directory(path) ? path / train::kLogFile : path);
  bench::PlotSeries training{.name = run, .points = {}, .markers = false};
  bench::PlotSeries validation{.name = arguments.held_out ? run : run + ", held out", .points = {}};
  double tokens_of_step = 0, seconds = 0, validated = 0;
  for (const json& event : events) {
    if (event["event"] == "start") {
      const json& options = event.at("options");
      tokens_of_step = double(options.at("batch")) * double(options.at("length")) *
                       double(options.at("accumulate"));
      continue;
    }
    const bool is_step = event["event"] == "step";
    if (!is_step && event["event"] != "validation") continue;
    // A validation's seconds are those that it took.
    if (is_step) seconds = double(event.at("seconds")) - validated;
    const double steps = event.at("step");
    const double x = arguments.x == "steps"    ? steps
                     : arguments.x == "tokens" ? steps * tokens_of_step
                                               : seconds / 60;
    const double y = value_of(event, arguments.y);
    if (std::isfinite(y)) (is_step ? training : validation).points.push_back({x, y});
    if (!is_step) validated += double(event.at("seconds"));
  }
  if (arguments.held_out) training.points.clear();
  training.points = thinned(training.points);
  std::vector<bench::PlotSeries> curves{training, validation};
  std::erase_if(curves, [](const bench::PlotSeries& curve) { return curve.points.empty(); });
  require(!curves.empty(), "{} has logged no {} yet that tells its {}", run,
          arguments.held_out ? "validation" : "step", arguments.y);
  return curves;
}

void plot(const PlotArguments& arguments) {
  using bench::Scale;
  bench::Plot plot{.title = kMeaningOfY.at(arguments.y) + (arguments.held_out ? ", held out" : ""),
                   .x_label = kMeaningOfX.at(arguments.x),
                   .y_label = kMeaningOfY.at(arguments.y),
                   .series = {},
                   .x_scale = arguments.log_x ? Scale::kLogarithmic : Scale::kLinear,
                   .y_scale = arguments.log_y ? Scale::kLogarithmic : Scale::kLinear};
  for (const std::string& run : arguments.runs) {
    for (bench::PlotSeries& curve : curves_of(run, arguments)) {
      plot.series.push_back(std::move(curve));
    }
  }
  write_file(arguments.out, bench::plot_svg(plot));
  fmt::print("{}: {} curves of {} run{}\n", arguments.out, plot.series.size(),
             arguments.runs.size(), arguments.runs.size() == 1 ? "" : "s");
}

}  // namespace

void add_plot_command(CLI::App& program) {
  auto arguments = std::make_shared<PlotArguments>();
  CLI::App* command = program.add_subcommand("plot", "draw the curves of one or several runs");
  command->footer(
      "Writes an SVG file with the curve of each run's training as a line, and of its validation "
      "as\n"
      "dots. Where a run has logged more steps than the plot has room for, neighbours are "
      "averaged. Minutes are those of training, without the validations.\n"
      "\n"
      "Examples: pararnn plot run-a run-b --y bits --log-x --out bits.svg\n"
      "          pararnn plot run-a run-b --x minutes --y perplexity --held-out\n");
  command->add_option("runs", arguments->runs, "folders of runs, or their logs")->required();
  command->add_option("--x", arguments->x, "along the axis below: steps, tokens or minutes")
      ->capture_default_str()
      ->check(CLI::IsMember(keys_of(kMeaningOfX)));
  command
      ->add_option(
          "--y", arguments->y,
          "what is drawn: loss, bits, bits_per_byte (of validations), perplexity, gradient_norm, "
          "learning_rate or tokens_per_second")
      ->capture_default_str()
      ->check(CLI::IsMember(keys_of(kMeaningOfY)));
  command->add_flag("--held-out", arguments->held_out, "the curves of validations alone");
  command->add_flag("--log-x", arguments->log_x, "equal factors of x at equal distances");
  command->add_flag("--log-y", arguments->log_y, "equal factors of y at equal distances");
  command->add_option("--out", arguments->out, "the file")->capture_default_str();
  command->callback([arguments] { plot(*arguments); });
}

}  // namespace pararnn::cli
