#include "train/checkpoint.hpp"

#include <unistd.h>

#include <cctype>

#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

class CheckpointTest : public testing::Test {
 protected:
  /// Files of random bytes, as many as a checkpoint has.
  fs::path write_random(int64_t step, const KeptCheckpoints& kept = {.newest = 100}) {
    const auto write_files = [&](const fs::path& folder) {
      for (const char* name : {"model.safetensors", "config.json", "state.json", "empty"}) {
        const size_t size = name == std::string("empty") ? 0 : 1 + random_() % 5000;
        std::string bytes(size, '\0');
        for (char& byte : bytes) byte = static_cast<char>(random_());
        write(folder / name, bytes);
      }
    };
    const WrittenCheckpoint written = write_checkpoint(folder_.path(), step, kept, write_files);
    EXPECT_EQ(written.warnings, std::vector<std::string>{});
    return written.path;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const fs::path& checkpoint : list_checkpoints(folder_.path()))
      names.push_back(checkpoint.filename());
    return names;
  }

  fs::path latest() const { return fs::read_symlink(folder_ / "latest"); }

  TemporaryFolder folder_;
  std::mt19937 random_{1};
};

TEST_F(CheckpointTest, KeepsTheNewestAndPointsAtThem) {
  for (int64_t step = 1; step <= 20; ++step) {
    const fs::path written = write_random(step * 7, {.newest = 3});
    verify_checkpoint(written, true);
    EXPECT_EQ(latest(), written.filename());
    EXPECT_EQ(find_checkpoint(folder_.path()), written);
    const auto kept = list_checkpoints(folder_.path());
    EXPECT_EQ(kept.size(), std::min<size_t>(step, 3));
    EXPECT_EQ(kept.back(), written);
  }
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000126", "step-00000133", "step-00000140"}));
}

TEST_F(CheckpointTest, KeepsThoseOfEverySoManySteps) {
  for (int64_t step = 5; step <= 60; step += 5) write_random(step, {.newest = 2, .every = 20});
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000020", "step-00000040", "step-00000055",
                                               "step-00000060"}));
  // Fewer are kept from now on.
  write_random(65, {.newest = 1, .every = 40});
  EXPECT_EQ(names(), (std::vector<std::string>{"step-00000040", "step-00000065"}));
}

TEST_F(CheckpointTest, OrdersStepsAsNumbers) {
  write_random(1'000'000'000);
  write_random(99'999'999);
  EXPECT_EQ(names(), (std::vector<std::string>{"step-99999999", "step-1000000000"}));
}

TEST_F(CheckpointTest, FindsEveryDamageAndNamesFileAndMend) {
  const fs::path earlier = write_random(10), checkpoint = write_random(20);
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    const fs::path file = entry.path();
    const std::string whole = read(file);
    const auto expect_found = [&] {
      expect_error([&] { verify_checkpoint(checkpoint, true); }, {file.string(), earlier.string()});
    };
    for (int i = 0; i < 40 && !whole.empty(); ++i) {
      std::string damaged = whole;
      // A change of the manifest's white space is none.
      size_t place = random_() % whole.size();
      while (std::isspace(static_cast<unsigned char>(whole[place])))
        place = random_() % whole.size();
      damaged[place] = static_cast<char>(damaged[place] ^ (1 << random_() % 8));
      write(file, damaged);
      expect_found();
      write(file, whole.substr(0, random_() % whole.size()));
      expect_found();
    }
    write(file, whole + "x");
    expect_found();
    fs::remove(file);
    expect_found();
    write(file, whole);
    verify_checkpoint(checkpoint, true);
  }
}

TEST_F(CheckpointTest, AFailureInTheMiddleLeavesTheEarlierOnes) {
  const fs::path earlier = write_random(10);
  const auto fail_late = [&] {
    write_checkpoint(folder_.path(), 20, {.newest = 1}, [&](const fs::path& folder) {
      write(folder / "model.safetensors", "half");
      throw Error("no more ink");
    });
  };
  expect_error(fail_late, {"no more ink", earlier.string()});
  EXPECT_EQ(names(), std::vector<std::string>{"step-00000010"});
  EXPECT_EQ(latest(), "step-00000010");
  verify_checkpoint(earlier, true);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 2);
}

TEST_F(CheckpointTest, WhatAKillLeftBehindIsNoCheckpointAndIsCleaned) {
  const fs::path whole = write_random(10);
  for (const char* left : {".aside-step-00000020", ".aside-step-00000005"}) {
    fs::create_directory(folder_ / left);
    write(folder_ / left / "model.safetensors", "half");
  }
  EXPECT_EQ(find_checkpoint(folder_.path()), whole);
  { const auto lock = open_run(folder_.path()); }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 2);
  verify_checkpoint(whole, true);
}

TEST_F(CheckpointTest, NewerOnesAreSetAsideNotDeleted) {
  for (int64_t step : {10, 20, 30}) write_random(step);
  EXPECT_TRUE(set_newer_checkpoints_aside(folder_ / "step-00000010").empty());
  EXPECT_EQ(names(), std::vector<std::string>{"step-00000010"});
  EXPECT_EQ(latest(), "step-00000010");
  for (const char* name : {"step-00000020.abandoned", "step-00000030.abandoned"}) {
    verify_checkpoint(folder_ / name, true);
  }
}

TEST_F(CheckpointTest, ARunIsNotOverwrittenUnasked) {
  const fs::path run = folder_ / "a" / "run";
  { const auto lock = create_run(run, false); }
  { const auto lock = create_run(run, false); }
  write_checkpoint(run, 1, {}, [](const fs::path& folder) { write(folder / "config.json", "{}"); });
  write(run / "notes.txt", "mine");
  expect_error([&] { const auto lock = create_run(run, false); },
               {run.string(), "--resume", "--overwrite"});
  EXPECT_EQ(list_checkpoints(run).size(), 1u);
  { const auto lock = create_run(run, true); }
  EXPECT_TRUE(list_checkpoints(run).empty());
  EXPECT_FALSE(fs::is_symlink(run / "latest"));
  EXPECT_EQ(read(run / "notes.txt"), "mine");
}

TEST_F(CheckpointTest, ARunIsOneProcessesAtATime) {
  const fs::path run = folder_ / "run";
  const std::string holder = "process " + std::to_string(getpid());
  const auto expect_refused = [&] {
    expect_error([&] { const auto other = create_run(run, false); }, {run.string(), holder});
    expect_error([&] { const auto other = create_run(run, true); }, {run.string(), holder});
    expect_error([&] { const auto other = open_run(run); }, {run.string(), holder});
  };
  {
    const auto lock = create_run(run, false);
    write(run / kLogFile, "a line\n");
    fs::create_directory(run / ".aside-step-00000001");
    expect_refused();
    EXPECT_EQ(read(run / kLogFile), "a line\n");
    EXPECT_TRUE(fs::exists(run / ".aside-step-00000001"));
  }
  {
    const auto lock = open_run(run);
    expect_refused();
  }
  // A file that a killed process left is no lock, nor something that is in the run.
  fs::remove_all(run);
  write(run / ".lock", "process 1 on another machine");
  const auto lock = create_run(run, false);
}

TEST_F(CheckpointTest, MissingOnesAreNamed) {
  expect_error([&] { find_checkpoint(folder_ / "nowhere"); }, {"nowhere"});
  expect_error([&] { find_checkpoint(folder_.path()); }, {folder_.path().string()});
}

}  // namespace
}  // namespace pararnn::train
