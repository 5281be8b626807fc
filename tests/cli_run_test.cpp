// A run of `pararnn train` as the world around it changes: other processes, outputs that break,
// data that is no longer what it was.
#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "cli_test_support.hpp"

namespace pararnn::test {
namespace {

namespace fs = std::filesystem;

class Runs : public Program {
 protected:
  Runs() {
    std::mt19937 random(1);
    std::string text;
    while (text.size() < 300'000) text += random() % 3 == 0 ? "a state of " : "the cell\n";
    write("text", text);
  }

  /// Waits until a file has something in it.
  void wait_for(const std::string& name) const {
    for (int i = 0; i < 6000 && read(name).empty(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_FALSE(read(name).empty()) << name;
  }

  /// Expects one sentence in a file, with each of `words`.
  void expect_sentence(const std::string& name, const std::vector<std::string>& words) const {
    const std::string text = read(name);
    EXPECT_EQ(text.rfind("pararnn: ", 0), 0u) << text;
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
    for (const std::string& word : words)
      EXPECT_NE(text.find(word), std::string::npos) << text << " lacks " << word;
  }

  const std::string train_ =
      "train --data text --width 16 --layers 1 --batch 2 --length 16 --validation-tokens 100 "
      "--log-every 1 --threads 1 --device cpu ";
};

TEST_F(Runs, HaveOneProcessAtATime) {
  ASSERT_EQ(shell("$pararnn " + train_ +
                  "--steps 1000000 --checkpoint-every 20 --out run > first 2>&1 & echo $! > pid"),
            0);
  wait_for("run/latest/manifest.json");
  std::string process = read("pid");
  process.pop_back();
  fail(train_ + "--steps 3 --out run", 1, {"run", process});
  const std::string logged = read("run/log.jsonl");
  for (const std::string how : {"--resume", "--overwrite"}) {
    fail(train_ + how + " --out run --steps 3", 1, {" run;", "process " + process});
    EXPECT_EQ(read("run/log.jsonl").substr(0, logged.size()), logged) << how;
  }
  // A lock ends with its process, even one that could not put it back.
  kill(std::stoi(process), SIGKILL);
  for (int i = 0; i < 500 && kill(std::stoi(process), 0) == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  succeed("train --resume --device cpu --out run --steps 1");
  fs::remove_all(folder_ / "run" / "latest");
  succeed(train_ + "--overwrite --steps 1 --out run");
  EXPECT_FALSE(fs::exists(folder_ / "run" / ".lock"));
}

TEST_F(Runs, StopWithACheckpointWhereNobodyReads) {
  const std::string endless = "$pararnn " + train_ + "--steps 1000000 --validate-every 1 --out ";
  const auto goes_on = [&](const std::string& run) {
    const Outcome more =
        succeed("train --resume --device cpu --validate-every 0 --steps 3 --out " + run);
    EXPECT_NE(more.out.find("going on from " + run + "/step-"), std::string::npos) << more.out;
  };
  EXPECT_EQ(shell(endless + "full > /dev/full 2> err"), 1);
  expect_sentence("err", {"standard output", "No space left", "--resume"});
  goes_on("full");
  shell("{ " + endless + "piped; echo $? > status; } 2> err | head -1 > out");
  EXPECT_EQ(read("status"), "1\n");
  expect_sentence("err", {"standard output", "Broken pipe", "--resume"});
  goes_on("piped");
  // Standard error into the same pipe, as in `train 2>&1 | head`: nobody hears the sentence.
  shell("{ " + endless + "both; echo $? > status; } 2>&1 | head -1 > out");
  EXPECT_EQ(read("status"), "1\n");
  goes_on("both");
}

TEST_F(Runs, OutputThatIsLostIsAFailureOfEveryCommand) {
  EXPECT_EQ(shell("$pararnn " + train_ + "--steps 2 --out run > /dev/full 2> err"), 1);
  expect_sentence("err", {"standard output"});
  EXPECT_EQ(shell("$pararnn cells > /dev/full 2> err"), 1);
  expect_sentence("err", {"standard output"});
  EXPECT_EQ(shell("$pararnn --help > /dev/full 2> err"), 1);
  expect_sentence("err", {"standard output"});
  EXPECT_EQ(shell("$pararnn fly 2> /dev/full"), 2);
  EXPECT_EQ(shell("$pararnn eval --model missing 2> /dev/full"), 1);
}

TEST_F(Runs, ClosedOutputEndsUpInNoFile) {
  EXPECT_EQ(shell("$pararnn " + train_ + "--steps 2 --out run >&- 2>&-"), 1);
  EXPECT_EQ(read("run/log.jsonl").find("model:"), std::string::npos);
  EXPECT_EQ(read("run/log.jsonl").find("standard output"), std::string::npos);
}

TEST_F(Runs, GoOnAfterAHangUpThatIsIgnored) {
  ASSERT_EQ(shell("nohup $pararnn " + train_ +
                  "--steps 1000 --out run > out 2> err < /dev/null & echo $! > pid"),
            0);
  wait_for("run/log.jsonl");
  kill(std::stoi(read("pid")), SIGHUP);
  wait_for("run/step-00001000/manifest.json");
}

TEST_F(Runs, RefuseDataOfWhichOneByteChanged) {
  answer(train_ + "--steps 2 --out run");
  std::string text = read("text");
  text[150'000] ^= 1;  // neither near its beginning nor in the held-out part
  write("text", text);
  fail("train --resume --device cpu --steps 3 --out run", 1, {"--data", "text"});
  text[150'000] ^= 1;
  write("text", text);
  succeed("train --resume --device cpu --steps 3 --out run");
}

TEST_F(Runs, ClaimBitForBitOnlyOfSteps) {
  const std::string help = answer("train --help").out;
  const size_t claim = help.find("bit for bit");
  ASSERT_NE(claim, std::string::npos);
  const std::string around = help.substr(claim < 300 ? 0 : claim - 300, 600);
  EXPECT_NE(around.find("--minutes"), std::string::npos) << around;
  EXPECT_NE(around.find("--threads"), std::string::npos) << around;
}

}  // namespace
}  // namespace pararnn::test
