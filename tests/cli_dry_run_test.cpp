// `pararnn train --preset` and `--dry-run`: which value an option has in the end, and what is told
// of a run that is not begun.
#include <nlohmann/json.hpp>
#include <set>

#include "cli_test_support.hpp"
#include "nn/presets.hpp"
#include "train/memory.hpp"
#include "train/model_sizes.hpp"
#include "train/presets.hpp"

namespace pararnn::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class DryRun : public Program {
 protected:
  /// The report of `pararnn train --dry-run arguments`.
  json report(const std::string& arguments) const {
    const std::string file = folder_ / "report.json";
    const Outcome outcome = ask("train --dry-run --json " + file + " " + arguments);
    EXPECT_EQ(outcome.status, 0) << arguments << '\n' << outcome.err;
    return json::parse(read("report.json"));
  }

  std::set<std::string> listing() const {
    std::set<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path()))
      names.insert(entry.path());
    return names;
  }
};

TEST_F(DryRun, APresetIsWhatNoOptionSays) {
  for (const std::string& name : nn::preset_names()) {
    const json told = report("--preset " + name);
    nn::ModelConfig model = nn::preset(name);
    model.vocabulary = 32'000;
    EXPECT_EQ(told["model"], nn::to_json(model));
    const train::TrainConfig config = train::with_preset({}, name);
    EXPECT_EQ(told["options"]["learning_rate"], config.learning_rate);
    EXPECT_EQ(told["options"]["z_loss"], 1e-4);
  }
  const auto expect_given = [&](const json& told) {
    EXPECT_EQ(told["model"]["width"], 512);
    EXPECT_EQ(told["model"]["mlp_width"], 1536);  // of that width
    EXPECT_EQ(told["model"]["layers"], 24);
    EXPECT_EQ(told["model"]["tie_embedding"], true);
    EXPECT_EQ(told["model"]["mixers"]["rnn"]["heads"], 2);
    EXPECT_EQ(told["model"]["mixers"]["rnn"]["weight_bound"], 0.5);
    EXPECT_EQ(told["options"]["z_loss"], 0);
    EXPECT_EQ(told["options"]["learning_rate"], 1.5e-3);
    EXPECT_EQ(told["options"]["batch"], 3);
  };
  const std::string given = " --width 512 --heads 2 --tie-embedding true --z-loss 0 --batch 3 ";
  expect_given(report("--preset 400m" + given));
  expect_given(report(given + "--preset 400m"));
  write("whole.ini",
        "width = 512\nz-loss = 0\npreset = \"400m\"\nheads = 2\ntie-embedding = true\nbatch = 3\n");
  expect_given(report("--config " + (folder_ / "whole.ini").string()));
  write("part.ini", "width = 512\nheads = 2\nz-loss = 0\n");
  const std::string part =
      "--tie-embedding true --batch 3 --config " + (folder_ / "part.ini").string();
  expect_given(report("--preset 400m " + part));
  write("preset.ini", "preset = \"7b\"\nlayers = 24\nlearning-rate = 0.0015\n");
  expect_given(report(given + "--config " + (folder_ / "preset.ini").string()));
  EXPECT_EQ(report("--preset 400m --width 512 --mlp-width 96")["model"]["mlp_width"], 96);
  EXPECT_EQ(report("--preset 134m --mixer rnn*3,rnn")["model"]["mixer"], "rnn*3,rnn");
}

TEST_F(DryRun, TellsWhatIsReckoned) {
  const json told = report(
      "--preset 7b --vocabulary 50432 --precision bfloat16 --batch 8 --length 2048 --memory 139");
  nn::ModelConfig model = nn::preset("7b");
  model.vocabulary = 50'432;
  train::TrainConfig config{.data = {}, .batch = 8, .length = 2048, .precision = "bfloat16"};
  EXPECT_EQ(told["parameters"], train::parameter_count(model));
  double parts = 0;
  for (const json& part : told["parameter_parts"]) parts += double(part["count"]);
  EXPECT_EQ(parts, train::parameter_count(model));
  EXPECT_EQ(told["operations_per_token"], train::operations_per_token(model, 2048));
  const double available = told["available_bytes"];
  EXPECT_EQ(available, 139.0 * (1 << 30));
  ASSERT_EQ(told["memory"].size(), 4u);
  for (const json& column : told["memory"]) {
    config.recompute = column["recompute"];
    const auto plan = train::choose_recompute(model, config, torch::kCUDA, available);
    EXPECT_EQ(column["plan"], train::describe(plan, model.layers));
    EXPECT_EQ(column["bytes"],
              train::total_bytes(train::training_memory(model, config, torch::kCUDA, plan)));
    double bytes = 0;
    for (const json& part : column["parts"]) bytes += double(part["bytes"]);
    EXPECT_EQ(bytes, double(column["bytes"]));
    EXPECT_EQ(column["largest_batch"],
              train::largest_batch(model, config, torch::kCUDA, available));
  }
  // Of a CPU otherwise, and of the one at hand.
  EXPECT_EQ(report("--device cpu --memory 7")["device"], "a CPU");
  EXPECT_GT(report("--device cpu")["available_bytes"], 1e6);
}

TEST_F(DryRun, LeavesNothingBehind) {
  write("text", std::string(20'000, 'a') + "\n");
  const std::set<std::string> before = listing();
  for (const std::string arguments :
       {"--preset 134m --device cpu", "--data text --device cpu --overwrite --out text",
        "--data text --steps 3 --out run --memory 80 --preset 7b"}) {
    const Outcome outcome = ask("train --dry-run " + arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(listing(), before) << arguments;
  }
  // The text's own tokens.
  EXPECT_NE(ask("train --dry-run --data text --device cpu").out.find("vocabulary of 257"),
            std::string::npos);
}

TEST_F(DryRun, WhatDoesNotGoTogetherIsOneSentence) {
  const auto wrong = [&](const std::string& arguments, int status,
                         const std::vector<std::string>& words) {
    const Outcome outcome = ask("train " + arguments);
    SCOPED_TRACE(arguments + "\n" + outcome.err);
    EXPECT_EQ(outcome.status, status);
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
    for (const std::string& word : words) EXPECT_NE(outcome.err.find(word), std::string::npos);
  };
  wrong("--preset 7B --steps 3", 2, {"there is no preset 7B", "134m", "did you mean 7b?"});
  wrong("--preset llama --steps 3", 2, {"there is no preset llama", "134m, 400m, 1b, 3b, 7b"});
  wrong("--dry-run --resume", 2, {"--resume", "--dry-run"});
  wrong("--dry-run --data nope", 1, {"--data", "nope"});
  wrong("--dry-run --data text --vocabulary 300", 2, {"--vocabulary", "--data"});
  wrong("--vocabulary 300 --steps 3", 2, {"--vocabulary", "--dry-run"});
  wrong("--memory 80 --data text", 2, {"--memory", "--dry-run"});
  wrong("--dry-run --memory 0", 2, {"--memory: must be above 0"});
  wrong("--dry-run --preset 134m --heads 5", 1, {"--heads must divide --width"});
  wrong("--dry-run --preset 134m --mixer rnn*5", 1,
        {"--layers must be a multiple of 5", "--mixer rnn*5"});
  wrong("--dry-run --mixer attention --attention-heads 3", 1,
        {"must divide --width", "give other --attention-heads"});
  wrong("--dry-run --mixer mamba2 --mamba2-head-channels 5", 1,
        {"--mamba2-head-channels must divide --mamba2-expand times --width"});
  EXPECT_NE(ask("train --dry-run --preset 7b --memory 80").out.find("it does not fit"),
            std::string::npos);
}

TEST_F(DryRun, ARunThatGoesOnKeepsWhatItsPresetWas) {
  write("text", std::string(20'000, 'a') + "\n");
  const std::string small = " --width 16 --layers 1 --batch 1 --length 16 --device cpu ";
  succeed("train --data text --preset 400m --learning-rate 0.01 --steps 1" + small);
  const auto options = [&](const std::string& step) {
    return json::parse(read("run/" + step + "/state.json")).at("options");
  };
  const json before = options("step-00000001");
  EXPECT_EQ(before["z_loss"], 1e-4);
  EXPECT_EQ(before["learning_rate"], 0.01);
  // Given again with the options that were beside it, or left out: the run's own values stay.
  succeed("train --resume --preset 400m --steps 2 --width 16 --layers 1");
  EXPECT_EQ(options("step-00000002")["learning_rate"], 0.01);
  succeed("train --resume --steps 3");
  EXPECT_EQ(options("step-00000003")["z_loss"], 1e-4);
  EXPECT_EQ(json::parse(read("run/latest/config.json"))["mlp_width"], 256);
  fail("train --resume --preset 7b --steps 4", 1,
       {"--preset 7b", "32 layers of 4096 channels", "1 of 16", "leave the option out"});
}

TEST_F(DryRun, ARunThatGoesOnKeepsTheOptionsOfItsMixers) {
  write("text", std::string(20'000, 'a') + "\n");
  succeed(
      "train --data text --mixer rnn,attention --attention-heads 2 --steps 1 --width 16 --layers 2 "
      "--batch 1 --length 16 --device cpu");
  succeed("train --resume --attention-heads 2 --steps 2");
  fail("train --resume --attention-heads 4 --steps 3", 1,
       {"--attention-heads is 4", "started with 2", "leave the option out"});
  fail("train --resume --heads 2 --steps 3", 1, {"--heads is 2", "started with 1"});
}

}  // namespace
}  // namespace pararnn::test
