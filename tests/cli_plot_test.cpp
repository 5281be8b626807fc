// pararnn plot: curves of the logs of runs.
#include <nlohmann/json.hpp>

#include "cli_test_support.hpp"

namespace pararnn::test {
namespace {

using nlohmann::json;

class CliPlot : public Program {
 protected:
  /// A run of so many logged steps, validated after the last.
  void write_run(const std::string& name, int steps) const {
    std::string log = line({{"event", "start"},
                            {"step", 0},
                            {"options", {{"batch", 4}, {"length", 100}, {"accumulate", 2}}}});
    for (int step = 1; step <= steps; ++step) {
      log += line({{"event", "step"},
                   {"step", step},
                   {"loss", 1.0 + 4.0 / step},
                   {"gradient_norm", 1.0},
                   {"learning_rate", 0.001},
                   {"tokens_per_second", 1e5},
                   {"seconds", 2.0 * step}});
    }
    // What a run that is not stable logs as well.
    log +=
        line({{"event", "skip"}, {"step", steps}, {"loss", nullptr}, {"gradient_norm", nullptr}});
    log += line({{"event", "spike"}, {"step", steps}, {"loss", 9.0}, {"z_score", 7.5}});
    log += line({{"event", "warning"}, {"step", steps}, {"sentence", "mind the gap"}});
    log += line({{"event", "step"},
                 {"step", steps + 1},
                 {"loss", nullptr},
                 {"gradient_norm", nullptr},
                 {"learning_rate", 0.001},
                 {"tokens_per_second", 1e5},
                 {"skipped", 1},
                 {"seconds", 2.0 * (steps + 1)}});
    log += line({{"event", "validation"},
                 {"step", steps},
                 {"loss", 1.5},
                 {"bits_per_byte", 2.25},
                 {"seconds", 1.0}});
    write(name + "/log.jsonl", log);
  }
  static std::string line(const json& event) { return event.dump() + "\n"; }

  static int occurrences(const std::string& text, const std::string& word) {
    int count = 0;
    for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++count;
    return count;
  }
};

TEST_F(CliPlot, DrawsARunsTrainingAndItsValidation) {
  write_run("one", 20);
  answer("plot one");
  const std::string svg = read("curves.svg");
  EXPECT_EQ(occurrences(svg, "stroke-width=\"2\"/"), 19);
  EXPECT_EQ(occurrences(svg, "<circle"), 1 + 2) << "the validation, and the legend";
  EXPECT_NE(svg.find(">one<"), svg.npos);
  EXPECT_NE(svg.find(">one, held out<"), svg.npos);
  EXPECT_NE(svg.find(">16k<"), svg.npos) << "20 steps of 800 tokens";
}

TEST_F(CliPlot, SeveralRunsAndEveryAxis) {
  write_run("one", 2000);
  write_run("two", 3);
  for (const char* axes : {"--x steps --y loss", "--x tokens --y bits",
                           "--x minutes --y perplexity --log-x", "--y gradient_norm --log-y",
                           "--y learning_rate", "--y tokens_per_second --log-x --log-y"}) {
    answer(std::string("plot one two/log.jsonl ") + axes + " --out plot.svg");
    const std::string svg = read("plot.svg");
    EXPECT_NE(svg.find(">two/log.jsonl<"), svg.npos);
    EXPECT_LE(occurrences(svg, "<line"), 400 + 80) << "as many as there is room for";
  }
}

TEST_F(CliPlot, HeldOutTextAloneInBitsAByte) {
  write_run("one", 20);
  write_run("two", 20);
  for (const char* axes : {"--y bits_per_byte", "--y loss --held-out"}) {
    answer(std::string("plot one two --x minutes --out plot.svg ") + axes);
    const std::string svg = read("plot.svg");
    EXPECT_EQ(occurrences(svg, "stroke-width=\"2\"/"), 0) << "no line of training";
    EXPECT_EQ(occurrences(svg, "<circle"), 2 * (1 + 1)) << "a validation, and the legend";
  }
  EXPECT_NE(read("plot.svg").find(">two<"), std::string::npos);
}

TEST_F(CliPlot, MinutesAreThoseOfTrainingWithoutValidations) {
  // Steps that took a minute each, and validations of ten minutes.
  const auto run_of = [&](bool validates) {
    std::string log = line({{"event", "start"},
                            {"step", 0},
                            {"options", {{"batch", 1}, {"length", 1}, {"accumulate", 1}}}});
    double seconds = 0;
    for (int step = 1; step <= 8; ++step) {
      seconds += 60;
      log += line({{"event", "step"}, {"step", step}, {"loss", 9.0 - step}, {"seconds", seconds}});
      if (!validates) continue;
      seconds += 600;
      log += line({{"event", "validation"}, {"step", step}, {"loss", nullptr}, {"seconds", 600}});
    }
    return log;
  };
  write("log.jsonl", run_of(true));
  answer("plot log.jsonl --x minutes --out with.svg");
  write("log.jsonl", run_of(false));
  answer("plot log.jsonl --x minutes --out without.svg");
  EXPECT_EQ(read("with.svg"), read("without.svg"));
}

TEST_F(CliPlot, SaysWhatIsWrong) {
  write_run("one", 5);
  fail("plot nowhere", 1, {"nowhere"});
  fail("plot one --y colour", 2, {"--y", "colour"});
  write("empty/log.jsonl", "");
  fail("plot empty", 1, {"empty", "no step"});
  fail("plot empty --held-out", 1, {"empty", "no validation"});
  write("broken/log.jsonl", line({{"event", "start"}}) + "what?\n");
  fail("plot broken", 1, {"broken", "line 2"});
  fail("plot one --out nowhere/at/all.svg", 1, {"nowhere/at/all.svg"});
  // A line that is still being written does no harm.
  write("going/log.jsonl", read("one/log.jsonl") + "{\"event\": \"st");
  answer("plot going");
}

}  // namespace
}  // namespace pararnn::test
