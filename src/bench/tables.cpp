#include "bench/tables.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

namespace pararnn::bench {
namespace {

using nlohmann::json;

struct Column {
  const char* name;
  bool number;
};

std::string line(const std::vector<std::string>& fields) {
  return fmt::format("| {} |\n", fmt::join(fields, " | "));
}

/// Of so many columns, with the reason why there are no times.
std::string line_without_times(std::vector<std::string> fields, const std::string& why,
                               size_t columns) {
  fields.push_back(why);
  fields.resize(columns);
  return line(fields);
}

std::string header(const std::vector<Column>& columns) {
  std::vector<std::string> names;
  std::string rule = "|";
  for (const Column& column : columns) {
    names.emplace_back(column.name);
    rule += column.number ? "--:|" : "---|";
  }
  return line(names) + rule + "\n";
}

std::string text(const json& object, const char* key) { return object.at(key).get<std::string>(); }
double number(const json& object, const char* key) { return object.at(key).get<double>(); }
int64_t count(const json& object, const char* key) { return object.at(key).get<int64_t>(); }

std::string shape_of(const json& r) {
  return fmt::format("B{} T{} D{}", count(r, "batch"), count(r, "steps"), count(r, "channels"));
}

std::string plan_of(const json& r) {
  return fmt::format("{} ({})", text(r, "plan"), count(r, "chunks"));
}

std::string milliseconds(double ms) {
  return ms < 10 ? fmt::format("{:.2f}", ms) : fmt::format("{:.0f}", ms);
}

std::string microseconds(double us) {
  return us < 10    ? fmt::format("{:.2f}", us)
         : us < 100 ? fmt::format("{:.1f}", us)
                    : fmt::format("{:.0f}", us);
}

/// How many times `fast` goes into `slow`.
std::string times(double slow, double fast) {
  return slow < 10 * fast ? fmt::format("{:.1f}×", slow / fast)
                          : fmt::format("{:.0f}×", slow / fast);
}

std::string times(const json& r, const char* slow, const char* fast) {
  return r.contains(slow) ? times(number(r, slow), number(r, fast)) : "";
}

/// A ratio near one.
std::string ratio(double of, double to) { return fmt::format("{:.2f}×", of / to); }

// What a pass should take at most, in units of the roof or in microseconds.
struct Target {
  const char* cell;
  int64_t batch, steps, channels;
  const char* regime;  // empty: any
  double forward, backward;
  bool in_microseconds = false;
};
constexpr Target kTargets[] = {
    {"gru", 32, 2048, 2048, "", 1.2, 1.4},
    {"gru", 8, 2048, 2048, "forgetting", 1.5, 1.5},
    {"gru", 1, 65536, 2048, "forgetting", 1.25, 1.4},
    {"gru", 1, 65536, 2048, "memory", 2.8, 2.0},
    {"gru", 1, 65536, 256, "forgetting", 1.9, 1.8},
    {"gru", 1, 65536, 256, "memory", 4, 3},
    {"gru", 1, 2048, 2048, "forgetting", 25, 50, true},
    {"gru", 1, 1048576, 64, "forgetting", 1.7, 1.8},
    {"lstm", 32, 2048, 2048, "", 1.4, 1.7},
};
// No plan is slower than this times the sequential one.
constexpr double kMostOfSequential = 1.1;

std::string judged(double got, double target, const char* unit) {
  return fmt::format("{:g}{} {}", target, unit, got <= target ? "met" : "missed");
}

std::string targets_of(const json& r) {
  const json &forward = r.at("forward"), &backward = r.at("backward");
  std::vector<std::string> result;
  for (const Target& t : kTargets) {
    const bool meant = text(r, "cell") == t.cell && count(r, "batch") == t.batch &&
                       count(r, "steps") == t.steps && count(r, "channels") == t.channels &&
                       (*t.regime == 0 || text(r, "regime") == t.regime) &&
                       text(r, "dtype") == "bfloat16";
    if (!meant) continue;
    for (const auto& [pass, target] : {std::pair{forward, t.forward}, {backward, t.backward}}) {
      const double us = number(pass, "us");
      result.push_back(t.in_microseconds ? judged(us, target, " µs")
                                         : judged(us / number(pass, "roof_us"), target, "×"));
    }
  }
  if (forward.contains("sequential_us")) {
    const auto worst = std::max(number(forward, "us") / number(forward, "sequential_us"),
                                number(backward, "us") / number(backward, "sequential_us"));
    result.push_back(judged(worst, kMostOfSequential, "× sequential"));
  }
  return fmt::format("{}", fmt::join(result, ", "));
}

std::string share_corrected(const json& pass) {
  const int64_t columns = count(pass, "columns");
  if (columns == 0 || count(pass, "chunks") == 1) return "";
  return fmt::format("{:.0f} %", 100 * number(pass, "columns_corrected") / double(columns));
}

bool same_shape(const json& a, const json& b) {
  for (const char* key : {"dtype", "batch", "steps", "channels"}) {
    if (a.at(key) != b.at(key)) return false;
  }
  return true;
}

/// The engine's result at a baseline's shape, or nothing.
const json* engine_beside(const json& report, const json& baseline) {
  for (const json& r : report.at("results")) {
    const bool same_cell = text(baseline, "cell").empty() || baseline.at("cell") == r.at("cell");
    if (same_cell && same_shape(r, baseline) && r.contains("forward")) return &r;
  }
  return nullptr;
}

const json* loop_beside(const json& report, const json& result) {
  for (const json& b : report.at("baselines")) {
    if (text(b, "name") == "loop of ops" && b.at("cell") == result.at("cell") &&
        same_shape(b, result) && b.contains("forward_us")) {
      return &b;
    }
  }
  return nullptr;
}

}  // namespace

std::string machine_line(const json& report) {
  const json& m = report.at("machine");
  // Of parts that are measured by themselves the rate of a copy is not.
  if (!report.contains("copy_gigabytes_per_second")) {
    return text(m, "processor") + ".\n\n";
  }
  const double rate = number(report, "copy_gigabytes_per_second");
  if (m.contains("multiprocessors")) {
    return fmt::format(
        "{}, {} multiprocessors; LibTorch {}; a copy moves {:.0f} GB/s; a graph of one kernel that "
        "does next to nothing takes {:.1f} µs.\n\n",
        text(m, "processor"), count(m, "multiprocessors"), text(m, "libtorch"), rate,
        number(report, "empty_graph_us"));
  }
  return fmt::format("{}, {} cores, {} threads, {}; {}; {}; a copy moves {:.1f} GB/s.\n\n",
                     text(m, "processor"), count(m, "cores"), count(m, "threads"),
                     text(m, "instruction_set"), text(m, "compiler"), text(report, "dtype"), rate);
}

std::string cpu_table_header() {
  return header({{"cell", false},
                 {"shape", false},
                 {"regime", false},
                 {"plan", false},
                 {"forward, ms", true},
                 {"against the scalar loop", true},
                 {"against the vectorised loop", true},
                 {"of the roof", true},
                 {"forward + backward, ms", true},
                 {"against the loop of ops", true},
                 {"of the roof", true}});
}

std::string cpu_table_row(const json& r) {
  const auto roof = [&](const char* roof_ms, const char* ms) {
    return fmt::format("{:.0f} %", 100 * number(r, roof_ms) / number(r, ms));
  };
  return line({text(r, "cell"), shape_of(r), text(r, "regime"), plan_of(r),
               milliseconds(number(r, "forward_ms")), times(r, "scalar_loop_ms", "forward_ms"),
               times(r, "vectorized_loop_ms", "forward_ms"), roof("forward_roof_ms", "forward_ms"),
               milliseconds(number(r, "forward_backward_ms")),
               times(r, "torch_loop_forward_backward_ms", "forward_backward_ms"),
               roof("forward_backward_roof_ms", "forward_backward_ms")});
}

std::string gpu_table_header() {
  return header({{"cell", false},
                 {"dtype", false},
                 {"shape", false},
                 {"regime", false},
                 {"forward plan", false},
                 {"corrected", true},
                 {"forward, µs", true},
                 {"of the roof", true},
                 {"with checkpoints, µs", true},
                 {"backward plan", false},
                 {"corrected", true},
                 {"backward, µs", true},
                 {"of the roof", true},
                 {"of the sequential plan", true},
                 {"targets", false}});
}

std::string gpu_table_row(const json& r) {
  std::vector<std::string> fields = {text(r, "cell"), text(r, "dtype"), shape_of(r),
                                     text(r, "regime")};
  if (r.contains("wrong")) {
    return line_without_times(fields, "**wrong**, not timed", 15);
  }
  const json &forward = r.at("forward"), &backward = r.at("backward");
  const auto add_pass = [&](const json& pass) {
    fields.insert(fields.end(),
                  {plan_of(pass), share_corrected(pass), microseconds(number(pass, "us")),
                   ratio(number(pass, "us"), number(pass, "roof_us"))});
  };
  add_pass(forward);
  fields.push_back(microseconds(number(r.at("training_forward"), "us")));
  add_pass(backward);
  const auto of_sequential = [](const json& pass) {
    return ratio(number(pass, "us"), number(pass, "sequential_us"));
  };
  fields.push_back(forward.contains("sequential_us")
                       ? of_sequential(forward) + ", " + of_sequential(backward)
                       : "");
  fields.push_back(targets_of(r));
  return line(fields);
}

std::string module_table_header() {
  return header({{"cell", false},
                 {"dtype", false},
                 {"shape", false},
                 {"regime", false},
                 {"forward, ms", true},
                 {"against the loop of ops", true},
                 {"forward + backward, ms", true},
                 {"against the loop of ops", true}});
}

std::string module_table_row(const json& report, const json& r) {
  std::vector<std::string> fields = {text(r, "cell"), text(r, "dtype"), shape_of(r),
                                     text(r, "regime")};
  if (r.contains("wrong")) {
    return line_without_times(fields, "**wrong**, not timed", 8);
  }
  const json* loop = loop_beside(report, r);
  for (const auto& [eager, of_loop] : {std::pair{"eager_forward_us", "forward_us"},
                                       {"eager_forward_backward_us", "forward_backward_us"}}) {
    fields.push_back(milliseconds(number(r, eager) / 1e3));
    fields.push_back(loop ? times(number(*loop, of_loop), number(r, eager)) : "");
  }
  return line(fields);
}

std::string decode_table_header() {
  return header({{"cell", false},
                 {"dtype", false},
                 {"shape", false},
                 {"step, µs", true},
                 {"a copy of the same bytes, µs", true},
                 {"of the copy", true},
                 {"launched by the host, µs", true}});
}

std::string decode_table_row(const json& r) {
  std::vector<std::string> fields = {
      text(r, "cell"), text(r, "dtype"),
      fmt::format("B{} D{}", count(r, "batch"), count(r, "channels"))};
  if (r.contains("wrong")) {
    return line_without_times(fields, "**wrong**, not timed", 7);
  }
  const double us = number(r, "us"), copy = number(r, "copy_us");
  fields.insert(fields.end(), {microseconds(us), microseconds(copy), ratio(us, copy),
                               microseconds(number(r, "eager_us"))});
  return line(fields);
}

std::string baseline_table_header() {
  return header({{"cell", false},
                 {"dtype", false},
                 {"shape", false},
                 {"what", false},
                 {"forward, µs", true},
                 {"of the engine's", true},
                 {"forward + backward, µs", true},
                 {"of the engine's", true}});
}

std::string baseline_table_row(const json& report, const json& b) {
  std::vector<std::string> fields = {text(b, "cell"), text(b, "dtype"), shape_of(b),
                                     text(b, "name")};
  if (b.contains("skipped")) {
    return line_without_times(fields, "not measured: " + text(b, "skipped"), 8);
  }
  if (b.contains("measured_steps")) {
    fields.back() += fmt::format(", from {} steps", count(b, "measured_steps"));
  }
  const json* engine = engine_beside(report, b);
  const double forward = number(b, "forward_us"), both = number(b, "forward_backward_us");
  fields.push_back(microseconds(forward));
  fields.push_back(engine ? times(forward, number(engine->at("forward"), "us")) : "");
  fields.push_back(microseconds(both));
  fields.push_back(engine ? times(both, number(engine->at("training_forward"), "us") +
                                            number(engine->at("backward"), "us"))
                          : "");
  return line(fields);
}

}  // namespace pararnn::bench
