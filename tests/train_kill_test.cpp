// A run that is killed again and again, at any moment, and each time goes on. Every run is a
// process of its own, forked before this one computes anything.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "train/checkpoint.hpp"
#include "train/trainer.hpp"
#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

/// Trains in `run`, from its newest checkpoint if it has one, in a new process.
pid_t start_training(const fs::path& run, const fs::path& text) {
  const pid_t child = fork();
  if (child != 0) return child;
  try {
    const auto lock = open_run(run);
    const TrainConfig config{.data = text,
                             .batch = 2,
                             .length = 16,
                             .steps = 30,
                             .validate_every = 10,
                             .validation_tokens = 50,
                             .checkpoint_every = 1,
                             .keep = 2,
                             .log_every = 1};
    Trainer trainer(config, {.width = 16, .layers = 1}, data::open_dataset(text), run);
    if (!list_checkpoints(run).empty()) trainer.restore(run);
    _exit(trainer.run());
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    _exit(99);
  }
}

/// The exit status, or minus the signal that ended it.
int wait_for(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Kill, AtAnyMomentLeavesARunThatGoesOnBitForBit) {
  const TemporaryFolder folder;
  data::Random random(1);
  write(folder / "text.txt", data::random_text(random, 5000));
  const fs::path undisturbed = folder / "undisturbed", killed = folder / "killed";
  fs::create_directory(undisturbed);
  fs::create_directory(killed);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(wait_for(start_training(undisturbed, folder / "text.txt")), 0);
  // Moments are drawn from the time that a run takes on this machine, and from a little more after
  // each kill, so that in the end one gets through.
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(
                                std::chrono::steady_clock::now() - start)
                                .count();
  int kills = 0;
  while (true) {
    const pid_t child = start_training(killed, folder / "text.txt");
    std::this_thread::sleep_for(
        std::chrono::milliseconds(data::random_below(random, milliseconds + 10 * kills)));
    kill(child, SIGKILL);
    const int status = wait_for(child);
    // Whatever the moment, the newest checkpoint is whole, and `latest` points at a whole one.
    if (!list_checkpoints(killed).empty()) verify_checkpoint(find_checkpoint(killed), true);
    if (fs::is_symlink(killed / "latest")) verify_checkpoint(killed / "latest", true);
    if (status != 0) {
      ASSERT_EQ(status, -SIGKILL);
      ++kills;
    } else if (kills < 5) {
      fs::remove_all(killed);  // through too early: once more from the start
      fs::create_directory(killed);
    } else {
      break;
    }
  }
  for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_EQ(read(killed / "latest" / name), read(undisturbed / "latest" / name));
  }
  // The oldest goes when one is written, and a kill may come between the two.
  EXPECT_GE(list_checkpoints(killed).size(), 2u);
  EXPECT_LE(list_checkpoints(killed).size(), 3u);
}

}  // namespace
}  // namespace pararnn::train
