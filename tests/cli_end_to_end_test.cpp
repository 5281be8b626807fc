// The program as its user meets it: commands in, text, files and exit status out.
#include <torch/cuda.h>
#include <torch/types.h>

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "cli_test_support.hpp"

namespace pararnn::test {
namespace {

namespace fs = std::filesystem;

/// Sentences drawn from a few words: about 1.5 bits a byte, where a uniform guess takes 8.
std::string sentences(size_t bytes) {
  const std::vector<std::string> words{"the ",    "state ", "of ", "a ",    "cell ",  "depends ",
                                       "on its ", "input",  ".\n", "and, ", "gates ", "forget "};
  std::mt19937 random(1);
  std::string text;
  while (text.size() < bytes) text += words[random() % words.size()];
  return text;
}

class EndToEnd : public Program {
 protected:
  /// The losses that the run logged, step by step.
  std::vector<double> losses(const std::string& run) const {
    std::vector<double> losses;
    std::ifstream log(folder_ / run / "log.jsonl");
    for (std::string line; std::getline(log, line);) {
      const auto event = nlohmann::json::parse(line);
      if (event.at("event") == "step") losses.push_back(event.at("loss"));
    }
    return losses;
  }
};

// On the CPU, where a run repeats itself bit for bit.
constexpr const char* kSmall =
    " --width 32 --layers 1 --batch 8 --length 64 --learning-rate 0.02 --log-every 1 --threads 1 "
    "--device cpu ";

double mean(const double* begin, const double* end) {
  return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
}

double bits_per_byte(const std::string& text) {
  std::istringstream words(text.substr(text.find(": ") + 2));
  double bits = NAN;
  words >> bits;
  EXPECT_NE(text.find(" bits per byte"), std::string::npos) << text;
  return bits;
}

TEST_F(EndToEnd, LearnsATextThenEvaluatesAndWritesIt) {
  write("text", sentences(100'000));
  succeed(std::string("train --data text --steps 80 --out run") + kSmall);
  const std::vector<double> loss = losses("run");
  ASSERT_EQ(loss.size(), 80u);
  const double first = mean(loss.data(), loss.data() + 5);
  const double last = mean(loss.data() + 75, loss.data() + 80);
  EXPECT_LT(last, 0.5 * first);

  const double held_out = bits_per_byte(succeed("eval --model run").out);
  EXPECT_NEAR(held_out, last / std::log(2.0), 0.5);
  write("noise", [] {
    std::mt19937 random(2);
    std::string text(10'000, ' ');
    for (char& byte : text) byte = static_cast<char>(' ' + random() % 95);
    return text;
  }());
  EXPECT_GT(bits_per_byte(answer("eval --model run --data noise").out), std::log2(95.0));

  // Several contexts at once give what each gives alone.
  const std::string table = answer("eval --model run --context 8,64,300 --json scores.json").out;
  const auto scores = nlohmann::json::parse(read("scores.json")).at("scores");
  ASSERT_EQ(scores.size(), 3u) << table;
  for (const auto& score : scores) {
    const std::string context = score.at("context").dump();
    const std::string alone = answer("eval --model run --context " + context).out;
    EXPECT_NEAR(score.at("bits_per_byte").get<double>(), bits_per_byte(alone), 1e-4) << alone;
    EXPECT_NE(table.find(" " + context + "  "), std::string::npos) << table;
    EXPECT_NE(table.find(fmt::format(" {:.4f} ", score.at("bits_per_byte").get<double>())),
              std::string::npos)
        << table;
  }
  EXPECT_GT(scores[0].at("loss"), scores[1].at("loss"));

  const std::string generate = "generate --model run --prompt 'the state ' --tokens 200 --seed ";
  const Outcome text = succeed(generate + "1");
  EXPECT_EQ(text.out.rfind("the state ", 0), 0u) << text.out;
  EXPECT_NE(text.err.find("tokens/s"), std::string::npos) << text.err;
  EXPECT_EQ(answer(generate + "1").out, text.out);
  EXPECT_NE(answer(generate + "2").out, text.out);
}

TEST_F(EndToEnd, SeveralTextsComeAsLinesOfJson) {
  write("text", sentences(20'000));
  answer(std::string("train --data text --steps 5 --out run") + kSmall);
  const std::string generate = "generate --model run ";
  const auto lines_of = [&](const std::string& options, int tokens = 30) {
    std::map<int64_t, nlohmann::json> rows;
    std::istringstream lines(
        answer(generate + "--tokens " + std::to_string(tokens) + " " + options).out);
    for (std::string line; std::getline(lines, line);) {
      const auto row = nlohmann::json::parse(line);
      EXPECT_TRUE(rows.emplace(row.at("row"), row).second);
    }
    return rows;
  };
  // At temperature 0 rounding does not choose the tokens; texts that begin alike are alike.
  write("prompts", "the \nstate of\n");
  const auto rows = lines_of("--prompts prompts --batch 2 --temperature 0 --seed 4");
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows.at(0).at("text"), rows.at(1).at("text"));
  EXPECT_EQ(rows.at(3).at("seed"), 7);
  for (const auto& [row, prompt] : {std::pair{1, "the "}, {2, "state of"}}) {
    const auto& line = rows.at(row);
    const std::string alone =
        answer(generate + "--tokens 30 --temperature 0 --prompt '" + prompt + "'").out;
    EXPECT_EQ(line.at("text").get<std::string>() + "\n", alone);
    EXPECT_EQ(line.at("ended").get<bool>(), line.at("tokens") < 30);
  }
  const auto drawn = lines_of("--prompt the --batch 3");
  ASSERT_EQ(drawn.size(), 3u);
  EXPECT_NE(drawn.at(0).at("text"), drawn.at(1).at("text"));
  EXPECT_EQ(lines_of("--prompt the --batch 2", 0).at(1).at("text"), "the");
  fail("generate --model run --prompts nothing", 1, {"--prompts", "nothing"});
  write("empty", "");
  fail("generate --model run --prompts empty", 1, {"--prompts", "no lines"});
  fail("generate --model run --batch 0", 2, {"--batch", "0"});
}

TEST_F(EndToEnd, AConfigFileSaysWhatTheCommandLineSays) {
  write("text", sentences(20'000));
  write("small.ini",
        "data = \"text\"\nsteps = 3\nwidth = 32\nlayers = 1\nbatch = 8\nlength = 64\n"
        "learning-rate = 0.02\nlog-every = 1\nthreads = 1\ndevice = \"cpu\"\n");
  answer(std::string("train --data text --steps 3 --out by-options") + kSmall);
  answer("train --config small.ini --out by-file");
  answer("train --config small.ini --seed 1 --out other-seed");
  EXPECT_EQ(losses("by-file"), losses("by-options"));
  EXPECT_EQ(losses("by-file").size(), 3u);
  EXPECT_NE(losses("by-file"), losses("other-seed"));
}

TEST_F(EndToEnd, AResumedRunEndsWhereAnUninterruptedOneDoes) {
  write("text", sentences(20'000));
  const std::string train = std::string("train --data text --checkpoint-every 2") + kSmall;
  succeed(train + "--steps 6 --out whole");
  fail(train + "--steps 6 --out whole", 1, {"whole"});  // never on top of a run
  succeed(train + "--steps 6 --out parts");
  fs::remove_all(folder_ / "parts" / "step-00000006");
  succeed("train --resume --device cpu --out parts");
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    const std::string whole = read(std::string("whole/step-00000006/") + file);
    EXPECT_FALSE(whole.empty());
    EXPECT_EQ(read(std::string("parts/step-00000006/") + file), whole) << file;
  }
  EXPECT_EQ(losses("parts"), losses("whole"));
}

TEST_F(EndToEnd, ScansAreRunAsTheOptionsSay) {
  write("text", sentences(20'000));
  const std::string train =
      "train --data text --steps 4 --checkpoint-every 2 --width 32 --layers 1 --batch 4 "
      "--length 300 --learning-rate 0.02 --log-every 1 --threads 1 --device cpu ";
  const auto losses_with = [&](const std::string& name, const std::string& options) {
    answer(train + "--out " + name + " " + options);
    return losses(name);
  };
  const std::vector<double> loop = losses_with("loop", "--plan sequential");
  const std::vector<double> newton = losses_with("newton", "--plan newton --tolerance 1e-7");
  const std::vector<double> loose = losses_with("loose", "--plan newton --tolerance 0.1");
  ASSERT_EQ(newton.size(), loop.size());
  for (size_t i = 0; i < loop.size(); ++i) EXPECT_NEAR(newton[i], loop[i], 1e-4);
  EXPECT_NE(newton, loose);
  succeed(train + "--out twice --deterministic");
  EXPECT_EQ(losses_with("once", "--deterministic"), losses("twice"));
  // A run that goes on keeps its plan.
  fs::remove_all(folder_ / "newton" / "step-00000004");
  succeed("train --resume --device cpu --threads 1 --out newton");
  EXPECT_EQ(losses("newton"), newton);

  const std::string of_run = " --model loop --device cpu --threads 1 ";
  const std::string eval = "eval --length 300 --deterministic" + of_run;
  EXPECT_NEAR(bits_per_byte(answer(eval + "--plan newton").out),
              bits_per_byte(answer(eval + "--plan sequential").out), 1e-3);
  const std::string generate = "generate --tokens 20 --temperature 0 --prompt '" +
                               sentences(500).substr(0, 500) + "' --deterministic" + of_run;
  EXPECT_EQ(answer(generate + "--plan newton").out, answer(generate + "--plan sequential").out);
  for (const std::string tolerance : {"1", "inf"}) {
    fail("check --tolerance " + tolerance, 2, {"--tolerance", tolerance, "at most 0.1"});
  }
  fail("check --tolerance -1", 2, {"--tolerance", "-1", "at least 0"});
  for (const std::string command : {"train", "eval", "generate", "check", "bench"}) {
    const std::string needed = command == "train" ? " --data text --steps 3"
                               : command == "eval" || command == "generate" ? " --model loop"
                                                                            : "";
    fail(command + needed + " --plan fast", 2, {"--plan", "fast", "newton"});
    fail(command + needed + " --tolerance nan", 2, {"--tolerance", "nan"});
  }
}

TEST_F(EndToEnd, TokenizedTextTrainsToo) {
  write("texts/one", sentences(60'000));
  write("texts/two", sentences(30'000));
  answer("tokenize --data texts --held-out 0.5 --vocabulary 300 --out shards");
  succeed(std::string("train --data shards --steps 40 --out run") + kSmall);
  const std::vector<double> loss = losses("run");
  EXPECT_LT(loss.back(), 0.8 * loss.front());
  // Bits per byte of the text mean the same for every tokenizer.
  EXPECT_LT(bits_per_byte(answer("eval --model run --data texts/two").out), 5);
}

TEST_F(EndToEnd, WrongUsageIsOneSentenceAndStatusTwo) {
  write("text", sentences(1'000));
  fail("fly", 2, {"fly"});
  fail("train --data text --stpes 3", 2, {"--stpes"});
  fail("train --data text --steps three", 2, {"--steps", "three"});
  fail("train --data text --steps 3 --batch 0", 2, {"--batch", "0"});
  fail("train --data text --steps 3 --cell grue", 2, {"--cell", "grue", "gru"});
  fail("train --data text --steps 3 --mixer perceptron", 2, {"--mixer", "perceptron", "rnn"});
  fail("train --data text --steps 3 --mixer rnn*", 2, {"--mixer", "rnn*3"});
  fail("train --data text --steps 3 --device gpu", 2, {"--device", "gpu", "cuda"});
  fail("eval", 2, {"--model"});
  fail("generate --model run --top-p 2", 2, {"--top-p"});
  write("wrong.ini", "stpes = 3\n");
  fail("train --data text --config wrong.ini", 2, {"stpes"});
  fail("train --data text --config missing.ini", 2, {"missing.ini"});
}

TEST_F(EndToEnd, WhatCannotWorkIsOneSentenceAndStatusOne) {
  write("text", sentences(5'000));
  write("empty", "");
  write("binary", std::string(1'000, '\0'));
  fs::create_directory(folder_ / "nothing");
  fail("train --data missing --steps 3", 1, {"missing"});
  fail("train --data empty --steps 3", 1, {"empty"});
  fail("train --data nothing --steps 3", 1, {"nothing"});
  fail("train --data text", 1, {"--steps", "--minutes"});
  fail("train --data text --steps 3 --decay 0.2", 1, {"--decay", "--schedule wsd", "cosine"});
  fail("train --data text --steps 3 --schedule wsd --warmup 0.2 --decay 0.9", 1,
       {"--warmup", "--decay"});
  fail("train --data text --steps 3 --width 30 --heads 4", 1, {"heads", "30"});
  fail("train --data text --steps 3 --layers 5 --mixer rnn*3,rnn", 1, {"layers", "4", "5"});
  fail("train --data text --steps 3 --out text", 1, {"text"});
  fail("train --resume --out missing", 1, {"missing"});
  fail("eval --model missing", 1, {"missing"});
  fail("eval --model nothing", 1, {"nothing"});
  fail("generate --model text", 1, {"text"});
  fail(
      "train --data text --steps 30 --width 32 --layers 1 --threads 1 --learning-rate 1e14 --clip "
      "0",
      1, {"10 steps were skipped", "loss", "--learning-rate"});
}

TEST_F(EndToEnd, TrainsEvaluatesAndGeneratesOnTheDeviceNamed) {
  write("text", sentences(20'000));
  const std::string train = "train --data text --steps 3 --width 32 --layers 1 --device ";
  EXPECT_NE(succeed(train + "cpu --out run").out.find("device: cpu, "), std::string::npos);
  if (!torch::cuda::is_available()) {
    EXPECT_NE(answer(train + "auto --out auto").out.find("device: cpu, "), std::string::npos);
    for (const std::string& command : {train + "cuda --out gpu", train + "cuda:1 --out gpu",
                                       std::string("eval --model run --device cuda"),
                                       std::string("generate --model run --device cuda")}) {
      fail(command, 1, {"--device cuda", "GPU", "--device cpu"});
    }
    EXPECT_FALSE(fs::exists(folder_ / "gpu"));
    return;
  }
  for (const std::string precision : {"float32", "bfloat16"}) {
    SCOPED_TRACE(precision);
    const std::string on_gpu = "cuda --precision " + precision;
    const std::string out = succeed(train + on_gpu + " --overwrite --out gpu").out;
    EXPECT_NE(out.find("device: cuda:0, "), std::string::npos) << out;
    const double on_cpu = bits_per_byte(succeed("eval --model gpu --device cpu").out);
    EXPECT_NEAR(bits_per_byte(succeed("eval --model gpu --device " + on_gpu).out), on_cpu, 0.02);
    const std::string generate = "generate --model gpu --prompt 'the ' --tokens 50 --device ";
    EXPECT_EQ(succeed(generate + on_gpu).out.rfind("the ", 0), 0u);
    succeed("train --resume --steps 5 --device cpu --out gpu");
    succeed("train --resume --steps 6 --device " + on_gpu + " --out gpu");
  }
}

TEST_F(EndToEnd, ADamagedModelIsRefusedByName) {
  write("text", sentences(20'000));
  answer(std::string("train --data text --steps 1 --out run") + kSmall);
  const std::string weights = "run/step-00000001/model.safetensors";
  const std::string whole = read(weights);
  ASSERT_GT(whole.size(), 1'000u);
  std::mt19937 random(3);
  for (int i = 0; i < 4; ++i) {
    std::string damaged = whole;
    if (i % 2 == 0) {
      damaged.resize(random() % whole.size());
    } else {
      damaged[random() % whole.size()] ^= 1;
    }
    write(weights, damaged);
    fail("eval --model run", 1, {"model.safetensors"});
    fail("generate --model run --tokens 1", 1, {"model.safetensors"});
  }
}

TEST_F(EndToEnd, AFullDiskIsSaid) {
  write("text", sentences(20'000));
  answer(std::string("train --data text --steps 1 --out run") + kSmall);
  EXPECT_NE(shell("$pararnn generate --model run > /dev/full 2> err"), 0);
  EXPECT_EQ(read("err").rfind("pararnn: cannot write", 0), 0u);
}

TEST_F(EndToEnd, HelpListsTheCommandsAndEachHasItsOwn) {
  const std::string all = succeed("--help").out;
  EXPECT_EQ(answer("").out, all);
  for (const std::string command :
       {"train", "eval", "generate", "tokenize", "cells", "check", "bench"}) {
    EXPECT_NE(all.find("\n  " + command + " "), std::string::npos) << command;
    EXPECT_NE(answer(command + " --help").out.find("Usage: pararnn " + command), std::string::npos)
        << command;
  }
  EXPECT_EQ(answer("--version").out.rfind("pararnn ", 0), 0u);
}

}  // namespace
}  // namespace pararnn::test
