// What a run tells while it goes: lines of its log, and lines for whoever watches. Losses are shown
// in bits per byte where a token is a byte, otherwise as perplexity.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "train/evaluate.hpp"
#include "train/profile.hpp"
#include "train/progress.hpp"
#include "train/run_log.hpp"

namespace pararnn::train {

/// One step of training.
struct StepReport {
  int64_t step = 0;  // how many are done, with this one
  int64_t tokens = 0;
  double loss = 0;  // nats per token
  double gradient_norm = 0, learning_rate = 0;
  double seconds = 0;         // that it took
  bool skipped = false;       // loss or gradient was not finite: no weight changed
  int64_t skipped_steps = 0;  // how many were, with this one
  double z_score = 0;         // of the loss among those before it; see stability.hpp
};

/// Why a step was skipped: "its loss is nan and its gradient's norm inf".
std::string describe_skip(const StepReport& report);

/// The mean over the steps added; the loss is that of those that were not skipped, NaN of none.
struct StepMean {
  int64_t losses = 0, tokens = 0;
  double sum_of_losses = 0, seconds = 0;

  void add(const StepReport& report);
  double loss() const { return sum_of_losses / static_cast<double>(losses); }
  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

class RunReport {
 public:
  struct Options {
    std::filesystem::path log;  // empty: none
    int64_t log_bytes = 0;      // of the log to keep
    int64_t log_every = 10;     // steps
    int64_t total_steps = 0;    // 0: not known
    bool byte_tokens = true;
    std::FILE* show = nullptr;  // null: nowhere
  };
  explicit RunReport(const Options& options);

  /// `run_seconds` is the time since the run began, resumed parts included. These throw Error if
  /// the log cannot be written.
  void start(const nlohmann::json& settings);
  void step(const StepReport& report, double run_seconds, double seconds_left);
  void validation(int64_t step, const Score& score);
  /// Something that went wrong but does not stop the run; told once.
  void warning(int64_t step, const std::string& sentence);
  void profile(int64_t step, const Profile& profile);
  /// A line that is only shown.
  void say(const std::string& line) { progress_.say(line); }
  /// Why something could not be shown; empty if all was, and for a terminal.
  const std::string& failure() const { return progress_.failure(); }

  int64_t log_bytes() const { return log_ ? log_->bytes() : 0; }

 private:
  void write(const nlohmann::json& event);
  std::string describe_loss(double loss) const;

  int64_t log_every_, total_steps_;
  bool byte_tokens_;
  std::optional<RunLog> log_;
  Progress progress_;
  StepMean logged_, shown_;
  std::set<std::string> warnings_;
};

}  // namespace pararnn::train
