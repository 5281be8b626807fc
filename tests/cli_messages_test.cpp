// What the program says of itself, of command lines that it does not understand, and of what a
// machine has no memory for.
#include "cli_test_support.hpp"

namespace pararnn::test {
namespace {

class Messages : public Program {
 protected:
  /// Expects status 2, and one sentence of fewer than `most` bytes that has all of `parts`.
  void misunderstood(const std::string& arguments, const std::vector<std::string>& parts,
                     size_t most = 160) const {
    const Outcome outcome = ask(arguments);
    SCOPED_TRACE("pararnn " + arguments + "\n" + outcome.err);
    EXPECT_EQ(outcome.status, 2);
    EXPECT_EQ(outcome.err.rfind("pararnn: ", 0), 0u);
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
    EXPECT_LT(outcome.err.size(), most);
    for (const std::string& part : parts) EXPECT_NE(outcome.err.find(part), std::string::npos);
  }
};

const std::vector<std::string> kCommands = {"",         "train", "eval",      "generate",
                                            "tokenize", "cells", "cells new", "cells check",
                                            "check",    "bench"};

size_t characters(const std::string& text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](unsigned char byte) { return (byte & 0xc0) != 0x80; }));
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// The names of the options in a help, "--steps".
std::vector<std::string> options_in(const std::string& help) {
  std::vector<std::string> names;
  for (const std::string& line : lines_of(help)) {
    const size_t begin = line.find("--");
    if (line.rfind("  --", 0) != 0 || begin == line.npos) continue;
    names.push_back(line.substr(begin, line.find_first_of(" ,", begin) - begin));
  }
  return names;
}

TEST_F(Messages, HelpKeepsToNinetyColumns) {
  for (const std::string& command : kCommands) {
    const std::string help = ask(command + " --help").out;
    EXPECT_GT(lines_of(help).size(), 4u) << command;
    for (const std::string& line : lines_of(help)) {
      EXPECT_LE(characters(line), 90u) << command << ": " << line;
      EXPECT_TRUE(line.empty() || line.back() != ' ') << command << ": " << line;
    }
  }
  // Nothing is lost between two lines, and examples keep theirs.
  const std::string help = answer("train --help").out;
  std::string one_line;
  for (const std::string& line : lines_of(help)) {
    const size_t begin = line.find_first_not_of(' ');
    if (begin != line.npos) one_line += line.substr(begin) + " ";
  }
  for (const char* words :
       {"options given again replace those it was started with, where that makes sense",
        "a standard output that breaks write a checkpoint before they stop; --resume goes on as if "
        "there had been no stop"}) {
    EXPECT_NE(one_line.find(words), std::string::npos) << words;
  }
  EXPECT_NE(help.find("\n          pararnn train --resume --out big\n"), std::string::npos) << help;
}

TEST_F(Messages, ANameThatIsNearlyRightIsSuggested) {
  misunderstood("trian", {"trian", "did you mean train?", "pararnn --help"});
  misunderstood("trian --data text --steps 3", {"trian", "did you mean train?"});
  misunderstood("tokenise --data text", {"did you mean tokenize?"});
  misunderstood("cells chekc gru", {"pararnn cells has no command chekc", "did you mean check?"});
  misunderstood("train --data text --stpes=3",
                {"pararnn train has no option --stpes;", "--steps?"});
  misunderstood("train --learn 3", {"--learn", "did you mean --learning-rate?"});
  misunderstood("generate --mdoel run", {"--mdoel", "did you mean --model?"});
  write("wrong.ini", "stpes = 3\n");
  fail("train --data text --config wrong.ini", 2, {"stpes", "did you mean steps?"});
  for (const std::string far : {"fly", "--teleport", "xyz"}) {
    const std::string words = ask(far).err;
    EXPECT_EQ(words.find("did you mean"), std::string::npos) << words;
    EXPECT_NE(words.find(far), std::string::npos) << words;
  }
  misunderstood("train text", {"text", "pararnn train"});
  misunderstood("train --data text --steps 3 --steps 4", {"--steps is given twice"});
  // Any option with two letters swapped.
  for (const std::string command : {"train", "eval", "check"}) {
    const std::vector<std::string> names = options_in(ask(command + " --help").out);
    EXPECT_GT(names.size(), 8u);
    for (size_t i = 0; i < names.size(); ++i) {
      std::string slip = names[i];
      if (slip[3] == slip[4]) continue;
      std::swap(slip[3], slip[4]);
      misunderstood(command + " " + slip, {slip, "did you mean " + names[i] + "?"});
    }
  }
}

TEST_F(Messages, ADataPathThatIsNoUtf8IsRefusedBeforeAnythingIsWritten) {
  const std::string name = "caf\xe9";
  write(name, std::string(3'000, 'a') + "\n");
  fail("train --steps 1 --device cpu --out run --data " + name, 1, {"--data", "UTF-8"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
  write("latin.ini", "data = \"" + name + "\"\nsteps = 1\n");
  fail("train --device cpu --out run --config latin.ini", 1, {"--data", "UTF-8"});
  // Names inside a folder, of the run and of cells are not written down, and may be any bytes.
  write("folder/" + name, std::string(3'000, 'b') + "\n");
  std::filesystem::copy_file(PARARNN_SOURCE "/examples/cells/mgu.hpp", folder_ / (name + ".hpp"));
  answer(
      "train --data folder --steps 1 --width 16 --layers 1 --batch 1 --length 16 --device cpu "
      "--out run" +
      name + " --cell ./" + name + ".hpp");
  answer("eval --device cpu --model run" + name + " --data " + name);
}

// Of every option that takes a number: its name, and what it must be, in a short sentence.
TEST_F(Messages, AWrongNumberIsAnsweredByWhatItMustBe) {
  const std::vector<std::string> wrong_numbers = {"three", "nan", "1e300x",
                                                  "-99999999999999999999"};
  size_t numbers = 0;
  for (const std::string command : {"train", "eval", "generate", "tokenize", "check", "bench"}) {
    const std::string needed = command == "train"      ? " --data text --steps 3"
                               : command == "tokenize" ? " --data text --out shards"
                               : command == "eval" || command == "generate" ? " --model run"
                                                                            : "";
    for (const std::string& line : lines_of(ask(command + " --help").out)) {
      const std::vector<std::string> names = options_in(line + "\n");
      if (names.empty()) continue;
      const bool whole = line.find(names[0] + " N") != line.npos;
      if (!whole && line.find(names[0] + " X") == line.npos) continue;
      ++numbers;
      for (const std::string& wrong : wrong_numbers) {
        if (!whole && wrong[0] == '-') continue;  // as small as it likes
        misunderstood(command + needed + " " + names[0] + "=" + wrong,
                      {"pararnn: " + names[0] + ": must be ", "not " + wrong}, 140);
      }
    }
  }
  EXPECT_GT(numbers, 40u);
  misunderstood("generate --model run --seed -1",
                {"--seed: must be a whole number, 0 or more, not -1"});
  misunderstood("train --data text --weight-bound -1",
                {"--weight-bound: must be at least 0, not -1"});
  misunderstood("eval --model run --context 256,-1", {"--context: must be at least 0, not -1"});
  misunderstood("train --data text --batch 0", {"--batch: must be at least 1, not 0"});
  misunderstood("generate --model run --top-p 0", {"--top-p: must be above 0, not 0"});
  misunderstood("generate --model run --top-p 2", {"--top-p: must be at most 1, not 2"});
  misunderstood("train --data text --layers 99999999999999999999", {"--layers: must be at most"});
  misunderstood("train --data text --tie-embedding maybe",
                {"--tie-embedding: must be true or false, not maybe"});
}

TEST_F(Messages, WhatIsMissingIsToldWithItsOption) {
  write("text", "some text\n");
  fail("train --data nope --steps 3", 1, {"--data", "nope"});
  fail("eval --model nope", 1, {"--model", "nope"});
  fail("generate --model nope", 1, {"--model", "nope"});
  fail("tokenize --data nope --out shards", 1, {"--data", "nope"});
  fail("bench --from nope", 1, {"--from", "nope"});
  fail("cells check ./nope.hpp", 1, {"nope.hpp"});
}

TEST_F(Messages, WhatNoMachineHasMemoryForIsOneSentence) {
  write("text", [] {
    std::string text;
    while (text.size() < 20'000) text += "the state of a cell depends on its input.\n";
    return text;
  }());
  const std::string train = "train --data text --steps 1 --device cpu --out run ";
  const std::string sentence = "not enough memory on cpu";
  fail(train + "--width 1000000000", 1, {sentence, "optimizer", "weights", "--width"});
  fail(train + "--layers 1000000000", 1, {sentence, "--layers"});
  fail(train + "--mlp-width 1000000000", 1, {sentence, "--mlp-width"});
  fail(train + "--conv-width 1000000000", 1, {sentence, "weights"});
  fail(train + "--batch 1000000000", 1, {sentence, "activations", "--batch"});
  fail(train + "--batch 1000000000000000 --width 1073741824", 1, {sentence, "--batch"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
  answer(train + "--width 16 --layers 1 --batch 1 --length 16");
  for (const char* shape : {"16777216x16777216x16777216", "100000x100000x100000",
                            "99999999999999999999x9999999999x9999999999"}) {
    fail(std::string("bench --cell gru --shape ") + shape, 1, {sentence, "batch"});
  }
  fail("bench --cell gru --part sequences --shape 1x99999999999x99999", 1, {sentence});
  fail("check --batch 16777216 --steps 16777216 --channels 16777216", 1, {sentence, "channels"});
  fail("check --batch 16000 --steps 16000 --channels 16000", 1, {sentence, "steps"});
  // A model of another size than its weights, which is made before they are read.
  const std::string config = "run/step-00000001/config.json";
  std::string json = read(config);
  json.replace(json.find("\"width\": 16"), 11, "\"width\": 1000000000");
  std::filesystem::remove(folder_ / "run/step-00000001/manifest.json");
  write(config, json);
  for (const std::string command : {"eval", "generate"}) {
    fail(command + " --model run/step-00000001 --device cpu", 1, {"--model", sentence, "weights"});
  }
}

TEST_F(Messages, LimitedMemoryIsToldNotSuffered) {
  write("text", std::string(200'000, 'a') + "\n");
  // A limit of addresses, where malloc itself says no.
  const std::string limited = "ulimit -v 4000000; ";
  const Outcome outcome =
      run("train --data text --steps 1 --device cpu --threads 1 --width 64 --layers 2 --batch 600 "
          "--length 256",
          limited);
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  EXPECT_NE(outcome.err.find("not enough memory"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("--batch"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace pararnn::test
