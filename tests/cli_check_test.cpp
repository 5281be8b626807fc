// pararnn check, cells and bench, run as a person runs them.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "cells/cell_registry.hpp"

namespace pararnn {
namespace {

struct Outcome {
  int status;
  std::string output;  // and errors
};

Outcome pararnn(const std::string& arguments) {
  std::FILE* pipe = popen((PARARNN_PROGRAM " " + arguments + " 2>&1").c_str(), "r");
  Outcome outcome;
  char part[4096];
  while (const size_t size = std::fread(part, 1, sizeof part, pipe)) {
    outcome.output.append(part, size);
  }
  outcome.status = WEXITSTATUS(pclose(pipe));
  return outcome;
}

void expect_words(const Outcome& outcome, std::initializer_list<const char*> words) {
  for (const char* word : words) {
    EXPECT_NE(outcome.output.find(word), std::string::npos) << outcome.output << "lacks " << word;
  }
}

TEST(CliCheck, CellsListsTheRegistry) {
  const Outcome outcome = pararnn("cells");
  EXPECT_EQ(outcome.status, 0);
  for (const CellDefinition& cell : built_in_cells()) {
    expect_words(outcome, {std::string(cell.name).c_str(), std::string(cell.summary).c_str()});
  }
}

TEST(CliCheck, SaysWhatWasComparedAndPasses) {
  const Outcome outcome = pararnn(
      "check --cell lstm --batch 2 --steps 150 --channels 5 --weight-scale 8 --gate-bias 4 "
      "--dtype bfloat16 --seed 3 --plan newton --chunk 32");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  expect_words(outcome, {"lstm", "B2 T150 D5", "newton: 5 chunks of 32 steps", "mismatch",
                         "Newton iterations", "corrected", "repaired", "step residual", "dh0",
                         "boundary", "PASS"});
}

TEST(CliCheck, EmptySequencesPass) {
  EXPECT_EQ(pararnn("check --steps 0").status, 0);
  EXPECT_EQ(pararnn("check --batch 0").status, 0);
  EXPECT_EQ(pararnn("check --channels 0").status, 0);
}

TEST(CliCheck, TheGridNamesEveryCase) {
  const Outcome outcome = pararnn("check --grid --cell elman --steps 40 --channels 3");
  EXPECT_EQ(outcome.status, 0) << outcome.output;
  expect_words(outcome, {"±0.5", "±8", "float16", "400 cases, 0 failed"});
}

TEST(CliCheck, WrongOptionsAreToldAndChangeTheStatus) {
  const Outcome cell = pararnn("check --cell perceptron");
  EXPECT_EQ(cell.status, 2);
  expect_words(cell, {"pararnn: ", "--cell", "gru"});
  EXPECT_EQ(pararnn("check --plan fast").status, 2);
  EXPECT_EQ(pararnn("check --steps -1").status, 2);
  EXPECT_EQ(pararnn("check --weight-scale much").status, 2);
  EXPECT_EQ(pararnn("check --weight-scale nan").status, 1);
  const Outcome device = pararnn("check --device abacus");
  EXPECT_EQ(device.status, 2);
  expect_words(device, {"pararnn: ", "--device", "abacus", "cpu"});
}

TEST(CliCheck, BenchWritesWhatItMeasured) {
  const auto folder = std::filesystem::temp_directory_path() /
                      fmt::format("pararnn_bench_test_{}", static_cast<long>(getpid()));
  std::filesystem::create_directories(folder);
  const std::string json = folder / "report.json", markdown = folder / "report.md";
  const Outcome outcome = pararnn(
      fmt::format("bench --cell gru --shape 2x64x8 --json {} --markdown {}", json, markdown));
  EXPECT_EQ(outcome.status, 0) << outcome.output;
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
  const std::string again = folder / "again.md";
  EXPECT_EQ(pararnn(fmt::format("bench --from {} --markdown {}", json, again)).status, 0);
  EXPECT_TRUE(std::filesystem::file_size(again) > 200);
  EXPECT_EQ(pararnn("bench --shape 2x64").status, 1);
  EXPECT_EQ(pararnn("bench --from /nowhere").status, 1);
  EXPECT_EQ(pararnn(fmt::format("bench --from {} --markdown /nowhere/x.md", json)).status, 1);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace pararnn
