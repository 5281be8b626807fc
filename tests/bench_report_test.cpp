// The documents that `pararnn bench` makes of measurements.
#include <gtest/gtest.h>
#include <torch/version.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"
#include "base/temporary_folder.hpp"
#include "bench/options.hpp"
#include "bench/plot.hpp"
#include "bench/report.hpp"
#include "bench/tables.hpp"
#include "bench/train.hpp"
#include "bench/training_plot.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;

json pass(double us, double sequential_us = 0) {
  json result = {{"plan", "newton"},
                 {"chunk", 512},
                 {"chunks", 4},
                 {"burn_in", 64},
                 {"newton_iterations", 2},
                 {"columns", 2048},
                 {"columns_corrected", 512},
                 {"columns_repaired", 0},
                 {"us", us},
                 {"roof_us", 100.0}};
  if (sequential_us > 0) result["sequential_us"] = sequential_us;
  return result;
}

json scan_result(const char* regime, int64_t batch, int64_t steps, double us) {
  json result =
      describe_case(case_of("gru", {batch, steps, 2048}, regime, "bfloat16", "cuda"), regime);
  const double sequential = std::string(regime) == "hard" ? us : 0;
  result["part"] = "scan";
  result["forward"] = pass(us, sequential);
  result["training_forward"] = pass(us);
  result["backward"] = pass(2 * us, 1.5 * sequential);
  result["eager_forward_us"] = us;
  result["eager_forward_backward_us"] = 3 * us;
  return result;
}

json baseline(const char* name, int64_t steps, double us) {
  return {
      {"name", name},   {"cell", "gru"},    {"dtype", "bfloat16"}, {"batch", 1},
      {"steps", steps}, {"channels", 2048}, {"forward_us", us},    {"forward_backward_us", 3 * us}};
}

json gpu_report() {
  return {
      {"device", "cuda"},
      {"machine", {{"processor", "A GPU"}, {"multiprocessors", 100}, {"libtorch", TORCH_VERSION}}},
      {"dtype", "bfloat16"},
      {"copy_gigabytes_per_second", 2000.0},
      {"empty_graph_us", 3.0},
      {"results",
       {scan_result("forgetting", 1, 1024, 100), scan_result("forgetting", 1, 4096, 300)}},
      {"decode", json::array()},
      {"baselines", {baseline("loop of ops", 1024, 5e4), baseline("loop of ops", 4096, 2e5)}}};
}

/// The fields of a line of a table.
std::vector<std::string> fields(const std::string& row) {
  std::vector<std::string> result;
  size_t from = 2;
  for (size_t to; (to = row.find(" |", from)) != std::string::npos; from = to + 3) {
    result.push_back(to > from ? row.substr(from, to - from) : "");
  }
  return result;
}

TEST(BenchReport, LinesOfTablesHaveTheColumnsOfTheirHeaders) {
  const json report = gpu_report();
  const json& result = report["results"][0];
  const auto columns = [](const std::string& header) {
    return fields(header.substr(0, header.find('\n'))).size();
  };
  EXPECT_EQ(fields(gpu_table_row(result)).size(), columns(gpu_table_header()));
  EXPECT_EQ(fields(module_table_row(report, result)).size(), columns(module_table_header()));
  EXPECT_EQ(fields(baseline_table_row(report, report["baselines"][0])).size(),
            columns(baseline_table_header()));
  const json wrong = {{"cell", "gru"}, {"dtype", "bfloat16"}, {"batch", 1},   {"steps", 5},
                      {"channels", 7}, {"regime", "hard"},    {"wrong", "no"}};
  EXPECT_EQ(fields(gpu_table_row(wrong)).size(), columns(gpu_table_header()));
  EXPECT_EQ(fields(module_table_row(report, wrong)).size(), columns(module_table_header()));
  EXPECT_EQ(fields(decode_table_row(wrong)).size(), columns(decode_table_header()));
}

TEST(BenchReport, TargetsAreJudged) {
  const auto targets = [](const json& result) { return fields(gpu_table_row(result)).back(); };
  EXPECT_EQ(targets(scan_result("forgetting", 32, 2048, 119)), "1.2× met, 1.4× missed");
  EXPECT_EQ(targets(scan_result("memory", 1, 65536, 150)), "2.8× met, 2× missed");
  EXPECT_EQ(targets(scan_result("forgetting", 1, 2048, 24.9)), "25 µs met, 50 µs met");
  EXPECT_EQ(targets(scan_result("forgetting", 1, 512, 24.9)), "");
  // Twice the sequential plan's 1.5.
  EXPECT_EQ(targets(scan_result("hard", 1, 512, 50)), "1.1× sequential missed");
  EXPECT_NE(gpu_table_row(scan_result("hard", 1, 512, 50)).find("1.00×, 1.33×"), std::string::npos);
}

TEST(BenchReport, BaselinesAreRatiosToTheEngine) {
  const json report = gpu_report();
  const auto row = fields(baseline_table_row(report, report["baselines"][0]));
  EXPECT_EQ(row[5], "500×");  // 5e4 of 100
  EXPECT_EQ(row[7], "500×");  // 15e4 of 100 + 200
  json skipped = report["baselines"][0];
  skipped["skipped"] = "out of memory";
  EXPECT_NE(baseline_table_row(report, skipped).find("out of memory"), std::string::npos);
}

std::string write(const TemporaryFolder& folder, const std::string& name, const json& report) {
  const std::string path = folder.path() / name;
  write_report(path, report);
  return path;
}

TEST(BenchReport, ReportsAreMergedAndTheLastMeasurementCounts) {
  const TemporaryFolder folder;
  json first = gpu_report(), second = gpu_report();
  second["results"] = {scan_result("forgetting", 1, 4096, 250), scan_result("memory", 1, 4096, 9)};
  second["baselines"] = {baseline("attention", 4096, 77)};
  const json merged =
      read_reports({write(folder, "first.json", first), write(folder, "second.json", second)});
  ASSERT_EQ(merged["results"].size(), 3u);
  EXPECT_EQ(merged["results"][0], first["results"][0]);
  EXPECT_EQ(merged["results"][1]["forward"]["us"], 250);
  EXPECT_EQ(merged["results"][2]["regime"], "memory");
  EXPECT_EQ(merged["baselines"].size(), 3u);
  second["machine"]["processor"] = "Another GPU";
  EXPECT_THROW(read_reports({folder.path() / "first.json", write(folder, "other.json", second)}),
               Error);
  const std::string document = markdown_of(merged, "docs/gpu.md", "docs/gpu.svg");
  for (const char* words :
       {"A GPU", "2000 GB/s", "B1 T4096 D2048", "250", "attention", "25 %", "](gpu.svg)"}) {
    EXPECT_NE(document.find(words), std::string::npos) << words;
  }
}

int occurrences(const std::string& text, const std::string& word) {
  int count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

TEST(BenchReport, ThePlotHasAPointForEachMeasurement) {
  json report = gpu_report();
  report["baselines"][1]["measured_steps"] = 2048;
  report["results"].push_back(scan_result("forgetting", 8, 4096, 1));  // another batch
  const std::string svg = time_against_steps_svg(report);
  // Two of the engine, two of the loop, and one each in the legend.
  EXPECT_EQ(occurrences(svg, "<circle"), 6);
  EXPECT_EQ(occurrences(svg, "fill=\"none\""), 1) << "of the extrapolated point";
  EXPECT_EQ(occurrences(svg, "<svg"), occurrences(svg, "</svg>"));
  EXPECT_NE(svg.find("gru, forgetting"), std::string::npos);
  EXPECT_NE(svg.find("loop of ops"), std::string::npos);
  EXPECT_NE(svg.find("prefers-color-scheme:dark"), std::string::npos);
  report["device"] = "cpu";
  EXPECT_THROW(time_against_steps_svg(report), Error);
}

/// The numbers of an attribute, in order.
std::vector<double> attributes(const std::string& svg, const std::string& name) {
  std::vector<double> result;
  const std::string key = " " + name + "=\"";
  for (size_t at = svg.find(key); at != std::string::npos; at = svg.find(key, at + 1)) {
    result.push_back(std::stod(svg.substr(at + key.size())));
  }
  return result;
}

TEST(BenchReport, EqualFactorsAreEqualDistancesInThePlot) {
  const std::string svg =
      plot_svg({"a < b & c", "x", "y", {{"one", {{64, 1}, {256, 10}, {1024, 100}}}}});
  const auto x = attributes(svg, "cx"), y = attributes(svg, "cy");
  EXPECT_NEAR(x[1] - x[0], x[2] - x[1], 0.11);
  EXPECT_NEAR(y[1] - y[0], y[2] - y[1], 0.11);
  EXPECT_GT(x[1], x[0]);
  EXPECT_LT(y[1], y[0]);
  EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_THROW(plot_svg({"", "", "", {}}), Error);
  EXPECT_THROW(plot_svg({"", "", "", {{"zero", {{1, 0}}}}}), Error);
}

json trained(const char* mixer, const char* cell, int64_t length, double tokens_per_second) {
  const auto part = [](const char* name, double seconds) {
    return json{{"name", name}, {"calls", 1}, {"seconds", seconds}};
  };
  json measured = {{"size", "134m"},
                   {"mixer", mixer},
                   {"batch", 128 / length},
                   {"steps", length},
                   {"milliseconds", 100.0},
                   {"tokens_per_second", tokens_per_second},
                   {"share_of_peak", nullptr},
                   {"peak_gigabytes", 1.0},
                   {"profile",
                    {{"seconds", 0.2},
                     {"parts", {part("products", 0.06), part("scan", 0.02), part("idle", 0.12)}}}}};
  if (*cell) measured["cell"] = cell;
  return measured;
}

TEST(BenchReport, ALogarithmicAxisFitsItsPoints) {
  const auto ticks = [](double low, double high) {
    const std::string svg = plot_svg({"", "", "", {{"", {{1, low}, {2, high}}}}});
    std::string found;  // of the y axis, whose numbers end at it
    const std::string key = "text-anchor=\"end\"";
    for (size_t at = svg.find(key); at != svg.npos; at = svg.find(key, at + 1)) {
      const size_t begin = svg.find('>', at) + 1;
      found += svg.substr(begin, svg.find('<', begin) - begin) + " ";
    }
    return found;
  };
  EXPECT_EQ(ticks(7, 60), "5 10 20 50 100 ");
  EXPECT_EQ(ticks(10, 20), "10 20 ");
  EXPECT_EQ(ticks(2, 2), "2 5 ");
  EXPECT_EQ(ticks(0.3, 0.4), "0.2 0.5 ");
  EXPECT_EQ(ticks(1, 1000), "1 10 100 1000 ");
  EXPECT_EQ(ticks(3, 4000), "1 10 100 1000 10000 ");
}

TEST(BenchReport, BarsOfTrainingAreTheSharesOfAStep) {
  const json report = {{"results", json::array()}, {"training", {trained("rnn", "gru", 64, 1280)}}};
  const std::string svg = training_svg(report);
  const std::string bars = svg.substr(svg.find("<rect"));
  const auto widths = attributes(bars, "width");
  ASSERT_EQ(widths.size(), 4u);  // two parts, and their places in the legend
  EXPECT_NEAR(widths[0], 3 * widths[1], 0.3);
  EXPECT_NE(svg.find("134m gru B2 T64"), std::string::npos);
  EXPECT_EQ(svg.find("<circle"), std::string::npos) << "one length makes no line";
  EXPECT_THROW(training_svg({{"results", json::array()}}), Error);
}

TEST(BenchReport, AModelAtSeveralLengthsIsALineOfTokensASecond) {
  const json report = {{"training",
                        {trained("rnn", "gru", 32, 4000), trained("rnn", "gru", 128, 2000),
                         trained("rnn*3,rnn", "lstm", 32, 1000), trained("rnn", "lstm", 32, 9e6),
                         trained("rnn*3,rnn", "lstm", 128, 3000)}}};
  const std::string svg = training_svg(report);
  const auto x = attributes(svg, "cx"), y = attributes(svg, "cy");
  ASSERT_EQ(x.size(), 2u * 3) << "two points and a place in the legend of each of two models";
  EXPECT_EQ(x[0], x[3]);
  EXPECT_EQ(x[1], x[4]);
  EXPECT_LT(x[0], x[1]);
  // From zero: 4000, 3000, 2000 and 1000 at equal distances, and the last as far from the bottom.
  EXPECT_NEAR(y[4] - y[0], y[1] - y[4], 0.11);
  EXPECT_NEAR(y[3] - y[1], y[1] - y[4], 0.11);
  EXPECT_NE(svg.find(">0<"), std::string::npos);
  EXPECT_NE(svg.find(">gru<"), std::string::npos);
  EXPECT_NE(svg.find(">lstm*3,lstm<"), std::string::npos);
  EXPECT_EQ(attributes(svg, "width").size(), 1 + attributes(svg, "rx").size() + 5 * 2 + 2)
      << "the drawing, and the bars below";
}

TEST(BenchReport, TrainingIsNamedByItsMixersAndTheirCells) {
  EXPECT_EQ(mixer_label("rnn", "gru"), "gru");
  EXPECT_EQ(mixer_label("rnn*5,rnn", "lstm"), "lstm*5,lstm");
  EXPECT_EQ(mixer_label("other*2,rnn", "gru"), "other*2,gru");
  EXPECT_EQ(fields(training_table_row(trained("other", "", 64, 5)))[1], "other");
  EXPECT_EQ(fields(training_table_row(trained("rnn*3,rnn", "gru", 64, 5)))[1], "gru*3,gru");
  const TemporaryFolder folder;
  json first = gpu_report(), second = gpu_report();
  first["training"] = {trained("rnn", "gru", 64, 1), trained("other", "", 64, 2)};
  second["training"] = {trained("rnn", "gru", 64, 3), trained("another", "", 64, 4)};
  const json merged =
      read_reports({write(folder, "first.json", first), write(folder, "second.json", second)});
  ASSERT_EQ(merged["training"].size(), 3u);
  EXPECT_EQ(merged["training"][0]["tokens_per_second"], 3);
}

}  // namespace
}  // namespace pararnn::bench
