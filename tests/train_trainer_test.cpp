#include "train/trainer.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "nn/model_files.hpp"
#include "ops/scan/scan.hpp"
#include "train/checkpoint.hpp"
#include "train/run_log.hpp"
#include "train/run_state.hpp"
#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

using Files = std::map<std::string, std::string>;

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() {
    data::Random random(1);
    write(folder_ / "text.txt", data::random_text(random, 5000));
  }

  Trainer make(const fs::path& run) {
    return {config_, model_, data::open_dataset(config_.data, {.held_out_share = config_.held_out}),
            run};
  }

  /// Trains to the end in a fresh run.
  fs::path train(const std::string& name) {
    const fs::path run = folder_ / name;
    const auto lock = create_run(run, false);
    EXPECT_EQ(make(run).run(), 0);
    return run;
  }

  /// What a run has learned: the files of its newest checkpoint that do not tell the time.
  static Files learned(const fs::path& run) {
    Files files;
    for (const char* name :
         {"model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json"}) {
      files[name] = read(run / "latest" / name);
    }
    return files;
  }

  /// The events of one kind in a run's log; every line must be JSON by the book.
  static std::vector<nlohmann::json> events(const fs::path& run, std::string_view kind) {
    std::vector<nlohmann::json> events;
    std::istringstream lines(read(run / kLogFile));
    for (std::string line; std::getline(lines, line);) {
      events.push_back(nlohmann::json::parse(line));
      if (events.back().at("event") != kind) events.pop_back();
    }
    return events;
  }

  /// Makes the gradient of the steps [first, last] infinite.
  static void spoil(Trainer& trainer, int64_t first, int64_t last) {
    trainer.model()->parameters().front().register_hook(
        [&trainer, first, last](const torch::Tensor& gradient) {
          const int64_t step = trainer.step() + 1;
          const bool bad = step >= first && step <= last;
          return bad ? gradient + std::numeric_limits<float>::infinity() : gradient;
        });
  }

  /// Expects that a run, gone on with from each of its checkpoints, ends as it did.
  void expect_the_same_from_every_checkpoint(const fs::path& run) {
    const Files expected = learned(run);
    const auto marks = [&](const fs::path& folder) {
      std::vector<nlohmann::json> marks = events(folder, "skip");
      for (const nlohmann::json& spike : events(folder, "spike")) marks.push_back(spike);
      return marks;
    };
    const auto expected_marks = marks(run);
    for (const fs::path& checkpoint : list_checkpoints(run)) {
      SCOPED_TRACE(checkpoint.string());
      const fs::path copy = folder_ / "copy";
      fs::copy(run, copy, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      Trainer trainer = make(copy);
      trainer.restore(copy / checkpoint.filename());
      EXPECT_EQ(trainer.run(), 0);
      EXPECT_EQ(learned(copy), expected);
      EXPECT_EQ(marks(copy), expected_marks);
      fs::remove_all(copy);
    }
  }

  /// The losses in a run's log, which must have each step once and in order.
  static std::vector<double> losses(const fs::path& run) {
    std::vector<double> losses;
    std::istringstream lines(read(run / kLogFile));
    for (std::string line; std::getline(lines, line) && !lines.eof();) {
      const nlohmann::json event = nlohmann::json::parse(line);
      if (event["event"] != "step") continue;
      losses.push_back(event["loss"]);
      EXPECT_EQ(event["step"], losses.size());
    }
    return losses;
  }

  TemporaryFolder folder_;
  TrainConfig config_{.data = (folder_ / "text.txt").string(),
                      .batch = 2,
                      .length = 16,
                      .steps = 12,
                      .validate_every = 7,
                      .validation_tokens = 100,
                      .checkpoint_every = 1,
                      .keep = 100,
                      .log_every = 1};
  nn::ModelConfig model_{.width = 16, .layers = 1};
};

TEST_F(TrainerTest, LearnsAndRepeatsItselfBitForBit) {
  config_.steps = 100;
  config_.checkpoint_every = 0;
  config_.learning_rate = 0.02;
  const fs::path run = train("run");
  const std::vector<double> steps = losses(run);
  ASSERT_EQ(steps.size(), 100u);
  EXPECT_LT(steps.back(), 0.7 * steps.front());
  EXPECT_EQ(learned(train("again")), learned(run));
  config_.seed = 1;
  EXPECT_NE(learned(train("other")), learned(run));
}

/// A device whose graph is the step itself; counts the replays.
GraphDevice rerunning(int64_t& replays) {
  return {.capture = [](const std::function<void()>& run) { return run; },
          .on_replay = [&replays] { ++replays; }};
}

TEST_F(TrainerTest, GraphsTrainAsStepsDo) {
  config_.accumulate = 2;
  config_.documents = true;
  config_.clip = 0.05;
  config_.z_loss = 0.01;
  model_.rnn.weight_bound = 0.05;
  const fs::path run = train("run"), replayed = folder_ / "replayed", resumed = folder_ / "resumed";
  int64_t replays = 0;
  const auto lock = create_run(replayed, false);
  Trainer trainer = make(replayed);
  trainer.use_graphs(rerunning(replays));
  EXPECT_EQ(trainer.run(), 0);
  // A validation after step 7 ends the graph.
  EXPECT_EQ(replays, config_.steps - 2 * StepGraph::kStepsBefore);
  EXPECT_EQ(learned(replayed), learned(run));
  EXPECT_EQ(losses(replayed), losses(run));
  fs::copy(replayed, resumed, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  Trainer other = make(resumed);
  other.use_graphs(rerunning(replays));
  other.restore(resumed / "step-00000005");
  EXPECT_EQ(other.run(), 0);
  EXPECT_EQ(learned(resumed), learned(run));
}

TEST_F(TrainerTest, AStepOfAGraphIsSkippedAsAnyOther) {
  std::vector<Files> results;
  for (const bool graph : {false, true}) {
    const fs::path run = folder_ / (graph ? "graph" : "steps");
    const auto lock = create_run(run, false);
    Trainer trainer = make(run);
    int64_t replays = 0;
    if (graph) trainer.use_graphs(rerunning(replays));
    spoil(trainer, 5, 6);
    EXPECT_EQ(trainer.run(), 0);
    EXPECT_EQ(events(run, "skip").size(), 2u);
    results.push_back(learned(run));
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(TrainerTest, StepsThatCannotBeAGraphAreAWarningAndTheSame) {
  const fs::path run = train("run"), warned = folder_ / "warned";
  const auto lock = create_run(warned, false);
  Trainer trainer = make(warned);
  trainer.use_graphs({.capture = [](const std::function<void()>&) -> std::function<void()> {
    throw Error("something waits for the host");
  }});
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(learned(warned), learned(run));
  const auto warnings = events(warned, "warning");
  ASSERT_EQ(warnings.size(), 1u);
  const auto sentence = warnings[0]["sentence"].get<std::string>();
  EXPECT_NE(sentence.find("something waits for the host"), std::string::npos) << sentence;
  EXPECT_EQ(sentence.find('\n'), std::string::npos);
}

TEST_F(TrainerTest, ProfilesItsFirstSteps) {
  config_.steps = RunProfiler::kStepsBefore + RunProfiler::kSteps;
  const fs::path run = folder_ / "run";
  const auto lock = create_run(run, false);
  Trainer trainer = make(run);
  trainer.profile();
  EXPECT_EQ(trainer.run(), 0);
  int profiles = 0;
  for (const nlohmann::json& event : read_run_log(run / kLogFile)) {
    if (event["event"] != "profile") continue;
    ++profiles;
    EXPECT_EQ(event["steps"], RunProfiler::kSteps);
    EXPECT_GT(event["seconds"], 0.0);
    EXPECT_EQ(event["parts"].back()["name"], "idle");
  }
  EXPECT_EQ(profiles, 1);
  EXPECT_TRUE(nlohmann::json::parse(read(run / kTraceFile)).contains("traceEvents"));
}

TEST_F(TrainerTest, ResumesBitForBitFromEveryStep) {
  const fs::path run = train("run");
  const Files expected = learned(run);
  const std::vector<double> expected_losses = losses(run);
  for (const fs::path& checkpoint : list_checkpoints(run)) {
    const fs::path copy = folder_ / ("from-" + checkpoint.filename().string());
    fs::copy(run, copy, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    Trainer trainer = make(copy);
    trainer.restore(copy / checkpoint.filename());
    EXPECT_EQ(trainer.run(), 0);
    EXPECT_EQ(learned(copy), expected);
    EXPECT_EQ(losses(copy), expected_losses);
    fs::remove_all(copy);
  }
}

TEST_F(TrainerTest, ResumesAMixedModelBitForBit) {
  model_.layers = 2;
  model_.mixer = "rnn*1,mamba2";
  model_.mamba2 = {.head_channels = 8, .state = 4};
  config_.documents = true;
  expect_the_same_from_every_checkpoint(train("run"));
}

TEST_F(TrainerTest, ResumesBitForBitWithAccumulationClippingAndZLoss) {
  config_.accumulate = 3;
  config_.clip = 0.05;
  config_.z_loss = 0.01;
  config_.checkpoint_every = 5;
  model_.rnn.weight_bound = 0.01;
  for (const std::string precision : {"float32", "bfloat16"}) {
    config_.precision = precision;
    const fs::path run = train(precision);
    const Files expected = learned(run);
    Trainer trainer = make(run);
    trainer.restore(run / "step-00000005");
    EXPECT_EQ(trainer.run(), 0);
    EXPECT_EQ(learned(run), expected);
  }
}

// A few steps in, the curves are one within bf16's rounding; the weights are the rounded masters.
TEST_F(TrainerTest, ReducedPrecisionTrainsAsTheFull) {
  config_.learning_rate = 0.02;
  config_.steps = 60;
  config_.checkpoint_every = 0;
  const std::vector<double> full = losses(train("float32"));
  config_.precision = "bfloat16";
  const fs::path run = train("bfloat16");
  const std::vector<double> reduced = losses(run);
  for (size_t i = 0; i < full.size(); ++i) EXPECT_NEAR(reduced[i], full[i], 0.02 * full[i]) << i;
  EXPECT_LT(full.back(), 0.9 * full.front());
  Trainer trainer = make(run);
  trainer.restore(run);
  const auto masters = nn::load_safetensors(run / "latest" / "model.safetensors").tensors;
  for (const auto& [name, weight] : nn::parameters_of(trainer.model())) {
    const torch::Tensor& master = masters.at(name);
    EXPECT_EQ(master.scalar_type(), torch::kFloat);
    EXPECT_EQ(weight.scalar_type(),
              trainer.model()->decays(name, weight) ? torch::kBFloat16 : torch::kFloat);
    EXPECT_TRUE(torch::equal(weight, master.to(weight.scalar_type()))) << name;
  }
}

TEST_F(TrainerTest, ResumesBitForBitOnEverySchedule) {
  config_.schedule = "wsd";
  config_.decay = 0.5;
  expect_the_same_from_every_checkpoint(train("stable"));
  config_.overfit = true;
  config_.accumulate = 2;
  expect_the_same_from_every_checkpoint(train("overfit"));
}

TEST_F(TrainerTest, OverfittingLearnsOneBatchByHeart) {
  config_.overfit = true;
  config_.learning_rate = 0;
  Trainer still = make(folder_ / "still");
  const double first = still.train_step().loss;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(still.train_step().loss, first);
  config_.learning_rate = 0.03;
  config_.steps = 150;
  config_.checkpoint_every = 0;
  EXPECT_LT(losses(train("run")).back(), 0.02 * first);
}

TEST_F(TrainerTest, KeepsCheckpointsForGood) {
  config_.checkpoint_every = 2;
  config_.keep = 1;
  config_.keep_every = 3;
  const fs::path run = train("run");
  std::vector<int64_t> steps;
  for (const fs::path& checkpoint : list_checkpoints(run)) steps.push_back(step_of(checkpoint));
  EXPECT_EQ(steps, (std::vector<int64_t>{3, 6, 9, 12}));
}

TEST_F(TrainerTest, AStepWhoseGradientIsNotFiniteIsSkipped) {
  Trainer undisturbed = make(folder_ / "undisturbed");
  const fs::path run = folder_ / "run";
  const auto lock = create_run(run, false);
  Trainer trainer = make(run);
  spoil(trainer, 4, 5);
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(trainer.step(), 12);
  const auto file = [&](int step, const char* name) {
    return read(run / fmt::format("step-{:08}", step) / name);
  };
  for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_NE(file(2, name), file(3, name));
    EXPECT_EQ(file(3, name), file(4, name));
    EXPECT_EQ(file(3, name), file(5, name));
    EXPECT_NE(file(5, name), file(6, name));
  }
  // The schedule goes on, and so does the text.
  const std::vector<nlohmann::json> steps = events(run, "step");
  for (size_t i = 0; i < steps.size(); ++i) {
    const StepReport expected = undisturbed.train_step();
    EXPECT_EQ(steps[i]["learning_rate"], expected.learning_rate);
    if (i < 4) {
      EXPECT_EQ(steps[i]["loss"].is_null(), i == 3);
    }
    EXPECT_EQ(steps[i]["skipped"], i < 3 ? 0 : i < 4 ? 1 : 2);
  }
  const std::vector<nlohmann::json> skips = events(run, "skip");
  ASSERT_EQ(skips.size(), 2u);
  EXPECT_EQ(skips[0]["step"], 4);
  EXPECT_TRUE(skips[0]["loss"].is_number());
  EXPECT_TRUE(skips[0]["gradient_norm"].is_null());
}

TEST_F(TrainerTest, ResumesBitForBitAmongSkippedSteps) {
  // A letter whose embedding is not a number.
  std::string text = read(config_.data);
  for (size_t i = 0; i < text.size(); i += 100) text[i] = '\x01';
  write(config_.data, text);
  config_.steps = 30;
  config_.log_every = 3;
  config_.checkpoint_every = 4;
  model_.tie_embedding = false;
  const fs::path run = folder_ / "run";
  const auto lock = create_run(run, false);
  Trainer trainer = make(run);
  {
    const torch::NoGradGuard no_gradient;
    trainer.model()->named_parameters()["embedding"][1].fill_(NAN);
  }
  EXPECT_EQ(trainer.run(), 0);
  const size_t skipped = events(run, "skip").size();
  EXPECT_GE(skipped, 4u);
  EXPECT_LE(skipped, 20u);
  EXPECT_EQ(events(run, "step").back()["skipped"], skipped);
  expect_the_same_from_every_checkpoint(run);
}

TEST_F(TrainerTest, TooManySkippedStepsInARowEndTheRun) {
  config_.keep = 2;
  config_.steps = 30;
  const fs::path run = folder_ / "run";
  const auto lock = create_run(run, false);
  {
    Trainer trainer = make(run);
    spoil(trainer, 6, 14);
    EXPECT_EQ(trainer.run(), 0);
    EXPECT_EQ(events(run, "skip").size(), 9u);
  }
  const auto again = create_run(folder_ / "again", false);
  const auto fails_at_fifteen = [&](Trainer& trainer) {
    spoil(trainer, 6, 30);
    // The weights after step 5 gave the first bad gradient.
    expect_error([&] { trainer.run(); }, {"last 10 steps were skipped", "again/step-00000004,",
                                          "--resume", "--learning-rate"});
    EXPECT_EQ(trainer.step(), 15);
  };
  Trainer trainer = make(folder_ / "again");
  fails_at_fifteen(trainer);
  Trainer resumed = make(folder_ / "again");
  resumed.restore(folder_ / "again" / "step-00000012");
  fails_at_fifteen(resumed);
  Trainer mended = make(folder_ / "again");
  mended.restore(folder_ / "again" / "step-00000004");
  EXPECT_EQ(mended.run(), 0);
}

TEST_F(TrainerTest, ALossThatStandsOutIsMarked) {
  data::Random random(4);
  std::string text;
  while (text.size() < 5000) text += "abcd";
  text.replace(2000, 60, data::random_text(random, 60).substr(0, 60));
  write(config_.data, text);
  config_.held_out = 0;
  config_.steps = 320;  // twice through the text
  config_.learning_rate = 0.02;
  config_.checkpoint_every = 60;
  const fs::path run = train("run");
  const std::vector<nlohmann::json> spikes = events(run, "spike");
  EXPECT_GE(spikes.size(), 1u);
  EXPECT_LE(spikes.size(), 10u);
  const std::vector<double> all = losses(run);
  for (const nlohmann::json& spike : spikes) {
    EXPECT_EQ(spike["loss"], all[spike["step"].get<size_t>() - 1]);
    EXPECT_GT(spike["z_score"], 6);
    EXPECT_GT(spike["loss"], 1);
  }
  expect_the_same_from_every_checkpoint(run);
}

TEST_F(TrainerTest, AccumulatedBatchesMakeTheStepOfOneLargeBatch) {
  config_.accumulate = 4;
  Trainer small = make(folder_ / "small");
  config_.accumulate = 1;
  config_.batch = 8;
  Trainer large = make(folder_ / "large");
  for (int i = 0; i < 3; ++i) {
    const StepReport one = small.train_step(), other = large.train_step();
    EXPECT_NEAR(one.loss, other.loss, 1e-5);
    EXPECT_NEAR(one.gradient_norm, other.gradient_norm, 1e-4);
    EXPECT_EQ(one.tokens, other.tokens);
  }
}

TEST_F(TrainerTest, DocumentsAreReadAsIfAlone) {
  data::Random random(2);
  for (const char* name : {"a.txt", "b.txt", "c.txt"}) {
    write(folder_ / "texts" / name, data::random_text(random, 40));
  }
  config_.data = (folder_ / "texts").string();
  config_.held_out = 0;
  config_.batch = 1;
  config_.length = 100;
  config_.documents = true;
  const StepReport step = make(folder_ / "run").train_step();

  const data::Dataset dataset = data::open_dataset(config_.data, {.held_out_share = 0});
  const data::Batch batch =
      data::BatchSampler(dataset.training, 1, config_.length, config_.seed).batch(0);
  torch::manual_seed(config_.seed);
  model_.vocabulary = dataset.tokenizer->vocabulary_size();
  nn::LanguageModel model(model_);
  double nats = 0;
  int documents = 0;
  for (int64_t begin = 0, end = 1; begin < config_.length; begin = end++, ++documents) {
    while (end < config_.length && batch.inputs[end] != dataset.tokenizer->end_of_document()) ++end;
    const auto of_document = [&](const std::vector<int32_t>& tokens) {
      return torch::tensor(std::vector<int64_t>(tokens.begin() + begin, tokens.begin() + end))
          .unsqueeze(0);
    };
    nats -= model->forward(of_document(batch.inputs))
                .log_softmax(2)
                .gather(2, of_document(batch.targets).unsqueeze(2))
                .sum()
                .item<double>();
  }
  EXPECT_GE(documents, 2);
  EXPECT_NEAR(step.loss, nats / 100, 1e-5);
}

TEST_F(TrainerTest, WhatIsComputedAgainChangesNoBit) {
  model_.layers = 3;
  config_.accumulate = 2;
  config_.documents = true;
  config_.steps = 4;
  for (const std::string precision : {"float32", "bfloat16"}) {
    config_.precision = precision;
    config_.recompute = "none";
    const Files expected = learned(train(precision + " none"));
    for (const std::string recompute : {"mixer", "block", "auto"}) {
      config_.recompute = recompute;
      const fs::path run = train(precision + " " + recompute);
      EXPECT_EQ(learned(run), expected) << precision << " " << recompute;
      const std::string told = events(run, "start").at(0).at("recompute");
      EXPECT_EQ(told, recompute == "mixer"   ? "the mixers of 3 of 3 blocks"
                      : recompute == "block" ? "3 of 3 blocks"
                                             : "none");
    }
  }
}

TEST_F(TrainerTest, AMillionTokensInARow) {
  config_.length = int64_t{1} << 20;
  config_.batch = 1;
  config_.steps = 1;
  config_.validate_every = 0;
  config_.recompute = "block";
  config_.held_out = 0.4;
  config_.validation_tokens = 0;
  model_ = {.width = 4, .layers = 1, .mlp_width = 4};
  data::Random random(3);
  write(folder_ / "text.txt", data::random_text(random, 1'800'000));
  const fs::path run = train("long");
  EXPECT_LT(losses(run).at(0), 8);
  EXPECT_GT(events(run, "validation").at(0).at("tokens"), 600'000);
}

TEST_F(TrainerTest, PlansDifferInTheLastDigitsAlone) {
  config_.length = 300;
  std::map<std::string, double> losses;
  for (const std::string plan : {"sequential", "speculative", "newton"}) {
    config_.plan = plan;
    Trainer trainer = make(folder_ / plan);
    for (int i = 0; i < 5; ++i) losses[plan] = trainer.train_step().loss;
    const auto [forward, backward] = last_scan_statistics();
    EXPECT_EQ(forward.plan, plan);
    EXPECT_EQ(backward.plan, plan);
    EXPECT_NEAR(losses[plan], losses["sequential"], 1e-4) << plan;
  }
}

TEST_F(TrainerTest, ASignalWritesACheckpointAndTheRunGoesOnBitForBit) {
  config_.checkpoint_every = 0;
  config_.steps = 300;
  const Files expected = learned(train("run"));
  const fs::path run = folder_ / "stopped";
  const auto lock = create_run(run, false);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    Trainer trainer = make(run);
    if (signal != SIGINT) trainer.restore(run);
    std::jthread sender([log = run / kLogFile, signal, before = losses(run).size()] {
      while (losses(log.parent_path()).size() < before + 5)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      kill(getpid(), signal);
    });
    ASSERT_EQ(trainer.run(), signal);
    EXPECT_LT(trainer.step(), 300);
    verify_checkpoint(find_checkpoint(run), true);
  }
  Trainer trainer = make(run);
  trainer.restore(run);
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(learned(run), expected);
}

TEST_F(TrainerTest, SignalsThatAreIgnoredStayIgnored) {
  config_.checkpoint_every = 0;
  config_.steps = 100;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const auto before = std::signal(signal, SIG_IGN);
    const fs::path run = folder_ / ("run" + std::to_string(signal));
    const auto lock = create_run(run, false);
    std::jthread sender([run, signal] {
      while (losses(run).size() < 5) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      kill(getpid(), signal);
    });
    Trainer trainer = make(run);
    EXPECT_EQ(trainer.run(), 0);
    EXPECT_EQ(trainer.step(), 100);
    sender.join();
    EXPECT_EQ(std::signal(signal, before), SIG_IGN);
  }
}

TEST_F(TrainerTest, AnOutputThatBreaksStopsTheRunWithACheckpoint) {
  std::signal(SIGPIPE, SIG_IGN);
  config_.checkpoint_every = 0;
  const Files expected = learned(train("whole"));
  const fs::path run = folder_ / "run";
  const auto lock = create_run(run, false);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> show(fdopen(ends[1], "w"), std::fclose);
    Trainer trainer(config_, model_, data::open_dataset(config_.data), run, torch::kCPU,
                    show.get());
    expect_error([&] { trainer.run(); }, {"Broken pipe", "step 1;", "--resume"});
  }
  EXPECT_EQ(find_checkpoint(run), run / "step-00000001");
  Trainer trainer = make(run);
  trainer.restore(run);
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(learned(run), expected);
}

TEST_F(TrainerTest, ATerminalThatGoesAwayIsLeftToItsSignal) {
  config_.steps = 200;
  config_.checkpoint_every = 0;
  config_.validate_every = 5;
  const fs::path run = folder_ / "run";
  const auto lock = create_run(run, false);
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  const int end = open(ptsname(terminal), O_RDWR | O_NOCTTY);
  ASSERT_GE(end, 0);
  const std::jthread leaver([run, terminal] {
    while (losses(run).size() < 5) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    close(terminal);
  });
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> show(fdopen(end, "w"), std::fclose);
  Trainer trainer(config_, model_, data::open_dataset(config_.data), run, torch::kCPU, show.get());
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_NE(std::ferror(show.get()), 0);
}

TEST_F(TrainerTest, WhatFailsAfterACheckpointIsAWarning) {
  config_.keep = 1;
  const fs::path run = folder_ / "run";
  fs::create_directory(run);
  write(run / "latest" / "mine", "no link can take this name");
  write(run / "step-00000000" / "model.safetensors", "old");
  const Unprivileged user(folder_.path());
  fs::permissions(run / "step-00000000", fs::perms::owner_read | fs::perms::owner_exec);
  Trainer trainer = make(run);
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(trainer.step(), 12);
  EXPECT_EQ(list_checkpoints(run), std::vector<fs::path>{run / "step-00000012"});
  verify_checkpoint(run / "step-00000012", true);
  const std::string log = read(run / kLogFile);
  EXPECT_NE(log.find("\"event\":\"warning\""), std::string::npos);
  EXPECT_NE(log.find((run / "latest").string()), std::string::npos);
  EXPECT_NE(log.find("step-00000000"), std::string::npos);
  EXPECT_EQ(losses(run).size(), 12u);
  // Nor does what could not be deleted stand in the way of going on.
  const auto lock = open_run(run);
  config_.steps = 14;
  Trainer again = make(run);
  again.restore(run);
  EXPECT_EQ(again.run(), 0);
  Trainer back = make(run);
  back.restore(run / "step-00000014");
  fs::permissions(run / ".aside-step-00000000", fs::perms::owner_all);
}

TEST_F(TrainerTest, AFullDiskIsOneSentenceAndTheLastCheckpointIsWhole) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const fs::path run = folder_ / "run";
  config_.steps = 5;
  config_.checkpoint_every = 5;
  const auto lock = create_run(run, false);
  EXPECT_EQ(make(run).run(), 0);
  // Too small for the log, for a manifest, for the tokenizer, and for the weights, in turn.
  config_.steps = 10;
  const auto weights = static_cast<rlim_t>(fs::file_size(run / "latest" / "model.safetensors"));
  for (const rlim_t limit : {rlim_t{1}, rlim_t{400}, weights / 2, weights + 1}) {
    Trainer trainer = make(run);
    trainer.restore(run);
    rlimit small = before;
    small.rlim_cur = limit;
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string sentence = error_of([&] { trainer.run(); });
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_NE(sentence.find("cannot write"), std::string::npos) << sentence;
    EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
    EXPECT_EQ(find_checkpoint(run), run / "step-00000005");
    EXPECT_EQ(fs::read_symlink(run / "latest"), "step-00000005");
    verify_checkpoint(run / "latest", true);
  }
  Trainer trainer = make(run);
  trainer.restore(run);
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(find_checkpoint(run), run / "step-00000010");
}

TEST_F(TrainerTest, ALossThatIsNotFiniteIsOneSentenceAndLeavesTheLastCheckpoint) {
  config_.checkpoint_every = 4;
  config_.steps = 4;
  const fs::path run = train("run");
  config_.steps = 400;
  config_.learning_rate = 1e12;
  config_.warmup = 0;
  Trainer trainer = make(run);
  trainer.restore(run);
  expect_error([&] { trainer.run(); },
               {"loss", "run/step-00000004,", "--resume", "--learning-rate"});
  for (const fs::path& checkpoint : list_checkpoints(run)) verify_checkpoint(checkpoint, true);
  config_.learning_rate = 0.001;
  Trainer mended = make(run);
  mended.restore(run / "step-00000004");
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(std::isfinite(mended.train_step().loss));
}

TEST_F(TrainerTest, ResumingWithOtherDataModelOrBatchNamesTheOption) {
  const fs::path run = train("run");
  const TrainConfig config = config_;
  const nn::ModelConfig model = model_;
  const auto expect_refused = [&](std::string_view option) {
    expect_error([&] { make(run).restore(run); }, {option, "resume"});
    config_ = config;
    model_ = model;
  };
  config_.batch = 3;
  expect_refused("--batch");
  config_.length = 15;
  expect_refused("--length");
  config_.accumulate = 2;
  expect_refused("--accumulate");
  config_.seed = 5;
  expect_refused("--seed");
  config_.held_out = 0.2;
  expect_refused("--held-out");
  model_.rnn.cell = "lstm";
  expect_refused("--cell");
  model_.rnn.heads = 2;
  expect_refused("--heads");
  model_.mixer = "rnn*1";
  expect_refused("--mixer");
  model_.norm_epsilon = 1e-4;
  expect_refused("norm_epsilon");
  model_.width = 32;
  expect_refused("--width");
  write(folder_ / "other.txt", read(config_.data) + "more");
  config_.data = folder_ / "other.txt";
  expect_refused("--data");
  config_.log_every = 3;  // this one may change
  config_.keep = 2;
  make(run).restore(run);
}

TEST_F(TrainerTest, ResumingWithDataOfWhichAByteChangedIsRefused) {
  data::Random random(1);
  const std::string text = data::random_text(random, 3'000'000);
  write(config_.data, text);
  config_.steps = 1;
  const fs::path run = train("run");
  for (const size_t place : {size_t{0}, text.size() / 2, size_t{1} << 20, text.size() - 1}) {
    std::string changed = text;
    changed[place] = changed[place] == 'a' ? 'b' : 'a';
    write(config_.data, changed);
    expect_error([&] { make(run).restore(run); }, {"--data", "resume"});
  }
  write(config_.data, text);
  make(run).restore(run);
  // A checkpoint of before content was hashed.
  nlohmann::json state = nlohmann::json::parse(read(run / "latest" / "state.json"));
  state.erase("content");
  write(folder_ / "state.json", state.dump());
  EXPECT_EQ(load_run_state(folder_.path()).content, "");
}

TEST_F(TrainerTest, ADamagedCheckpointIsRefusedWithTheOneBeforeIt) {
  const fs::path run = train("run");
  data::Random random(3);
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json",
                           "config.json", "tokenizer.json", "manifest.json"}) {
    const fs::path file = run / "step-00000012" / name;
    const std::string whole = read(file);
    std::string flipped = whole;
    flipped[static_cast<size_t>(data::random_below(random, std::ssize(whole) / 2))] ^= 0x40;
    const std::string cut =
        whole.substr(0, static_cast<size_t>(data::random_below(random, std::ssize(whole))));
    for (const std::string& damaged : {flipped, cut}) {
      write(file, damaged);
      expect_error([&] { make(run).restore(run); }, {name, "step-00000012", "step-00000011"});
    }
    write(file, whole);
  }
  make(run).restore(run);
}

TEST_F(TrainerTest, StopsWhenItsMinutesAreOver) {
  config_.steps = 0;
  config_.minutes = 0.5 / 60;
  config_.checkpoint_every = 0;
  config_.learning_rate_floor = 0.1;
  const auto begin = std::chrono::steady_clock::now();
  const fs::path run = train("run");
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(500));
  // The learning rate has come down to its end with the clock.
  std::istringstream lines(read(run / kLogFile));
  double rate = -1;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json event = nlohmann::json::parse(line);
    if (event["event"] == "step") rate = event["learning_rate"];
  }
  EXPECT_GT(rate, 0.1 * config_.learning_rate * 0.999);
  EXPECT_LT(rate, 0.3 * config_.learning_rate);
}

TEST_F(TrainerTest, SettingsThatMakeNoRunAreNamed) {
  config_.steps = 0;
  expect_error([&] { make("run"); }, {"--steps", "--minutes"});
  config_.steps = 1;
  config_.warmup = 1.5;
  expect_error([&] { make("run"); }, {"--warmup"});
  config_.warmup = 0;
  config_.length = 1 << 20;
  expect_error([&] { make("run"); }, {"text.txt"});
}

}  // namespace
}  // namespace pararnn::train
