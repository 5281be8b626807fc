#include "verdict/verdict_page.hpp"

#include <fmt/format.h>

#include "verdict/svg.hpp"
#include "verdict/verdict_plots.hpp"
#include "verdict/verdict_words.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;
using svg::escaped;

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --paper: #fff; --card: #f6f7f9; --ink: #1d232a; --faint: #667080;
  --edge: #d9dee5; --calm: #2f8f6b; --alarm: #d1442f; --middling: #b7791f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161b; --card: #1a2027; --ink: #e4e9ee; --faint: #98a3b0; --edge: #323b46;
    --calm: #3fae86; --alarm: #e9674f; --middling: #d9a441; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: clamp(1rem, 4vw, 3rem); }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.2; margin: 0 0 .6rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .3rem; }
p { margin: 0 0 .6rem; max-width: 46rem; }
code { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; font-size: .92em; }
.verdict { display: inline-block; padding: .15rem .7rem; border-radius: 1rem; font-weight: 600;
  font-size: 1.05rem; color: #fff; margin-bottom: .8rem; }
.well { background: #25785a; } .corrected { background: #94600f; } .sequence { background: #b83a27; }
.unknown { background: #5b6572; }
.why { font-size: 1.12rem; }
.warnings { border-left: 4px solid var(--middling); padding: .1rem 0 .1rem 1rem; margin: 1rem 0;
  max-width: 46rem; list-style: none; overflow-wrap: anywhere; }
.note { color: var(--faint); font-size: .9rem; }
.figures { display: grid; gap: 1.2rem; margin: 1.8rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--edge);
  border-radius: .6rem; min-width: 0; }
figure svg { display: block; width: 100%; max-width: 36rem; height: auto; margin: .4rem auto 0; }
svg text { fill: var(--ink); font-size: 12px; font-family: inherit; }
svg .title { fill: var(--faint); }
svg .label { paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
svg .grid { stroke: var(--edge); stroke-width: 1; }
svg .mark { stroke: var(--faint); stroke-width: 1.2; stroke-dasharray: 5 4; }
svg .median { stroke-width: 1.4; stroke-dasharray: 4 3; stroke-opacity: .8; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .6rem 0 0; padding: 0;
  list-style: none; font-size: .87rem; }
.legend span { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%;
  margin-right: .4rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .5rem 1.4rem;
  margin: 0; border-top: 1px solid var(--edge); padding-top: 1.2rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; } dd p { max-width: none;
  margin: 0 0 .15rem; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: .1rem; }
  dd { margin-bottom: .8rem; } figure { padding: .7rem; } svg text { font-size: 14px; } }
footer { margin-top: 2rem; }
@media print { figure { break-inside: avoid; } }
)";

constexpr const char* kCriteria =
    "<b>Runs in sequence</b>: at weights up to 1, with no gate bias, some channel has a positive "
    "Lyapunov exponent, or a state that grows beyond all bounds. <b>Parallelises well</b>: "
    "otherwise, if there every channel forgets its start to a millionth within the default "
    "burn-in. <b>Parallelises with corrections</b>: otherwise, if Newton’s method makes chunks as "
    "long as the planner’s agree within the corrections that the engine allows. The results are "
    "right in all three; what differs is time.";

std::string figure(const std::string& title, const std::string& words, const json& section,
                   const auto& draw) {
  std::string result =
      fmt::format("<figure>\n<h2>{}</h2>\n<p class=\"note\">{}</p>\n", title, words);
  if (const std::string why = why_not_available(section); !why.empty()) {
    return result + fmt::format("<p>{}</p>\n</figure>\n", escaped(why));
  }
  const VerdictPlot plot = draw();
  result += plot.svg;
  if (!plot.legend.empty()) {
    result += "<ul class=\"legend\">\n";
    for (size_t i = 0; i < plot.legend.size(); ++i) {
      result += fmt::format("<li><span style=\"background:{}\"></span>{}</li>\n",
                            svg::kColors[i % std::size(svg::kColors)], escaped(plot.legend[i]));
    }
    result += "</ul>\n";
  }
  return result + "</figure>\n";
}

std::string figures(const json& verdict) {
  const json &forgetting = verdict.at("forgetting"), &newton = verdict.at("newton"),
             &lyapunov = verdict.at("lyapunov"), &cost = verdict.at("cost"),
             &engine = verdict.at("engine_against_loop");
  std::string result = "<div class=\"figures\">\n";
  result += figure("How soon it forgets its start",
                   "Two trajectories under the same inputs, one from zero: how far they are apart. "
                   "Solid: the worst of the channels; dashed: the median.",
                   forgetting, [&] { return forgetting_plot(forgetting); });
  result +=
      figure("Newton corrections until boundaries agree",
             "The worst of the channels, over a sequence of 4096 steps; hollow: more than were "
             "tried.",
             newton, [&] { return newton_plot(newton); });
  result += figure("Lyapunov exponents",
                   "A step’s rate, the largest over the channels. Negative: starts are forgotten. "
                   "Positive: trajectories part, and nothing parallelises.",
                   lyapunov, [&] { return lyapunov_plot(lyapunov); });
  const auto deviation = [&](const json& section, const json& device) {
    result +=
        figure("The engine against the plain loop",
               "The largest deviation in units of what rounding and tolerance permit; up to 1 "
               "is right.",
               section, [&] { return deviation_plot(engine, device); });
  };
  if (engine.contains("devices")) {
    for (const json& device : engine["devices"]) deviation(engine, device);
  } else {
    deviation(engine, {});
  }
  result += figure("Time of a step", "In sequence, a step and channel; beside the built-in gru.",
                   cost, [&] { return cost_plot(cost); });
  return result + "</div>\n";
}

std::string conclusion(const json& verdict) {
  const json& section = verdict.at("conclusion");
  if (const std::string why = why_not_available(section); !why.empty()) {
    return fmt::format("<p class=\"verdict unknown\">no conclusion</p>\n<p>{}</p>\n", escaped(why));
  }
  const std::string words = section.at("verdict");
  const char* kind = words == "parallelises well"  ? "well"
                     : words == "runs in sequence" ? "sequence"
                                                   : "corrected";
  std::string result = fmt::format("<p class=\"verdict {}\">{}</p>\n<p class=\"why\">{}</p>\n",
                                   kind, words, escaped(section.at("why").get<std::string>()));
  const std::string in_long_memory = section.at("in_long_memory");
  if (!in_long_memory.empty()) result += fmt::format("<p>{}</p>\n", escaped(in_long_memory));
  if (!section.at("warnings").empty()) {
    result += "<ul class=\"warnings\">\n";
    for (const json& warning : section["warnings"]) {
      result += fmt::format("<li>{}</li>\n", escaped(warning.get<std::string>()));
    }
    result += "</ul>\n";
  }
  return result;
}

}  // namespace

std::string verdict_page(const json& verdict) {
  const std::string cell = escaped(verdict.at("cell").get<std::string>());
  std::string result = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{} – pararnn</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n"
      "<h1><code>{}</code></h1>\n",
      cell, kStyle, cell);
  result += conclusion(verdict) + figures(verdict) + "<dl>\n";
  for (const VerdictFact& fact : verdict_facts(verdict)) {
    result += fmt::format("<dt>{}</dt><dd>", escaped(fact.label));
    for (const std::string& line : fact.lines) {
      result += fmt::format("<p>{}</p>", escaped(line));
    }
    result += "</dd>\n";
  }
  return result + fmt::format(
                      "</dl>\n<footer class=\"note\">\n<p>{}</p>\n<p>{}</p>\n</footer>\n"
                      "</main>\n</body>\n</html>\n",
                      kCriteria, escaped(verdict.value("version", "")));
}

}  // namespace pararnn
