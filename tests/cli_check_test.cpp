// pararnn check, cells and bench, run as a person runs them.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cells/cell_registry.hpp"
#include "cli_test_support.hpp"

namespace pararnn::test {
namespace {

using CliCheck = Program;

void expect_words(const Outcome& outcome, std::initializer_list<const char*> words) {
  for (const char* word : words) {
    EXPECT_NE((outcome.out + outcome.err).find(word), std::string::npos)
        << outcome.out << outcome.err << "lacks " << word;
  }
}

TEST_F(CliCheck, CellsListsTheRegistry) {
  const Outcome outcome = ask("cells");
  EXPECT_EQ(outcome.status, 0);
  for (const CellDefinition& cell : built_in_cells()) {
    expect_words(outcome, {std::string(cell.name).c_str(), std::string(cell.summary).c_str()});
  }
}

TEST_F(CliCheck, SaysWhatWasComparedAndPasses) {
  const Outcome outcome =
      ask("check --cell lstm --batch 2 --steps 150 --channels 5 --weight-scale 8 --gate-bias 4 "
          "--dtype bfloat16 --seed 3 --plan newton --chunk 32");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  expect_words(outcome, {"lstm", "B2 T150 D5", "newton: 5 chunks of 32 steps", "mismatch",
                         "Newton iterations", "corrected", "repaired", "step residual", "dh0",
                         "boundary", "PASS"});
}

TEST_F(CliCheck, EmptySequencesPass) {
  EXPECT_EQ(ask("check --steps 0").status, 0);
  EXPECT_EQ(ask("check --batch 0").status, 0);
  EXPECT_EQ(ask("check --channels 0").status, 0);
}

TEST_F(CliCheck, TheGridNamesEveryCase) {
  const Outcome outcome = ask("check --grid --cell elman --steps 40 --channels 3");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  expect_words(outcome, {"±0.5", "±8", "float16", "400 cases, 0 failed"});
}

TEST_F(CliCheck, WrongOptionsAreToldAndChangeTheStatus) {
  const Outcome cell = ask("check --cell perceptron");
  EXPECT_EQ(cell.status, 2);
  expect_words(cell, {"pararnn: ", "--cell", "gru"});
  EXPECT_EQ(ask("check --plan fast").status, 2);
  EXPECT_EQ(ask("check --steps -1").status, 2);
  EXPECT_EQ(ask("check --weight-scale much").status, 2);
  EXPECT_EQ(ask("check --weight-scale nan").status, 2);
  const Outcome device = ask("check --device abacus");
  EXPECT_EQ(device.status, 2);
  expect_words(device, {"pararnn: ", "--device", "abacus", "cpu"});
}

TEST_F(CliCheck, BenchWritesWhatItMeasured) {
  const std::string json = folder_ / "report.json", markdown = folder_ / "report.md";
  const Outcome outcome =
      ask(fmt::format("bench --cell gru --shape 2x64x8 --json {} --markdown {}", json, markdown));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  const auto report = nlohmann::json::parse(std::ifstream(json));
  EXPECT_EQ(report.at("results").size(), 3u);
  for (const auto& result : report.at("results")) {
    EXPECT_EQ(result.at("cell"), "gru");
    for (const char* time : {"forward_ms", "forward_backward_ms", "scalar_loop_ms",
                             "vectorized_loop_ms", "torch_loop_forward_backward_ms"}) {
      EXPECT_GT(result.at(time).get<double>(), 0) << time;
    }
  }
  EXPECT_GT(report.at("copy_gigabytes_per_second").get<double>(), 0);
  const std::string again = folder_ / "again.md";
  EXPECT_EQ(ask(fmt::format("bench --from {} --markdown {}", json, again)).status, 0);
  EXPECT_TRUE(std::filesystem::file_size(again) > 200);
  // A cell from a file as well, but for the loop that is compiled with the program.
  const Outcome file = ask(fmt::format("bench --cell " PARARNN_SOURCE
                                       "/examples/cells/mgu.hpp --shape 1x64x3 --regime memory "
                                       "--json {}",
                                       json));
  EXPECT_EQ(file.status, 0) << file.err;
  const auto of_file = nlohmann::json::parse(std::ifstream(json)).at("results").at(0);
  for (const char* time : {"forward_ms", "scalar_loop_ms", "torch_loop_forward_backward_ms"}) {
    EXPECT_GT(of_file.at(time).get<double>(), 0) << time;
  }
  EXPECT_FALSE(of_file.contains("vectorized_loop_ms"));
  // First use: compiled the first time, and brought from the disk the next.
  const std::string cache = folder_ / "cache";
  for (const bool again : {false, true}) {
    const Outcome first = run(fmt::format("bench --part first-use --cell " PARARNN_SOURCE
                                          "/examples/cells/mgu.hpp --json {}",
                                          json),
                              "PARARNN_CACHE_DIR=" + cache);
    EXPECT_EQ(first.status, 0) << first.err;
    const auto of_use = nlohmann::json::parse(std::ifstream(json)).at("first_use").at(0);
    EXPECT_EQ(of_use.at("from_the_cache"), again);
    EXPECT_GT(of_use.at("first_use_s"), of_use.at("again_s"));
  }
  EXPECT_EQ(ask("bench --part first-use").status, 1);
  EXPECT_EQ(ask("bench --part decode").status, 1);
  EXPECT_EQ(ask("bench --shape 2x64").status, 1);
  EXPECT_EQ(ask("bench --from /nowhere").status, 1);
  EXPECT_EQ(ask(fmt::format("bench --from {} --markdown /nowhere/x.md", json)).status, 1);
}

TEST_F(CliCheck, BenchOfTrainingTakesMixersAndLengthsAndGoesOnWithoutMemory) {
  const std::string json = folder_ / "train.json", plot = folder_ / "train.svg";
  const std::string common =
      "bench train --device cpu --vocabulary 300 --steps 1 --tokens 16 --precision float32 ";
  // A process of its own: main() keeps the memory of a step, which is large, for the next.
  const Outcome outcome = run(common + "--mixer rnn rnn*3,rnn --length 8,1000000000 --json " +
                              json + " --plot " + plot);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  expect_words(outcome, {"134m gru B1 T1000000000: not enough memory", "| gru*3,gru | B2 T8 |"});
  const auto training = nlohmann::json::parse(std::ifstream(json)).at("training");
  ASSERT_EQ(training.size(), 2u);
  EXPECT_EQ(training[0].at("mixer"), "rnn");
  EXPECT_EQ(training[1].at("mixer"), "rnn*3,rnn");
  EXPECT_EQ(training[0].at("batch"), 2);
  // Of what was not measured nothing is told: neither memory nor the engine beside loops.
  EXPECT_TRUE(training[0].at("peak_gigabytes").is_null());
  const std::string markdown = folder_ / "train.md";
  EXPECT_EQ(
      ask(fmt::format("bench --from {} --plot {} --markdown {}", json, plot, markdown)).status, 0);
  std::ifstream written(markdown);
  const std::string document{std::istreambuf_iterator<char>(written), {}};
  EXPECT_NE(document.find("| gru*3,gru | B2 T8 |"), document.npos);
  EXPECT_EQ(document.find("loop"), document.npos) << document;
  EXPECT_EQ(ask(common + "--length 1000000000").status, 1);
  EXPECT_EQ(ask(common + "--mixer rnn rnm").status, 2);
  EXPECT_EQ(ask(common + "--mixer rnn*5").status, 1);
}

TEST_F(CliCheck, BenchReadsTheReportsInTheDocumentation) {
  const std::string markdown = folder_ / "training.md", plot = folder_ / "training.svg";
  const Outcome outcome = ask(fmt::format("bench --from " PARARNN_SOURCE
                                          "/docs/benchmarks-training.json --markdown {} --plot {}",
                                          markdown, plot));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  std::ifstream file(markdown);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_NE(text.find("| 134m | gru | B32 T2048 |"), text.npos);
}

}  // namespace
}  // namespace pararnn::test
