// The training loop. A step takes a batch of token sequences, runs the model forward and backward,
// clips the gradient and updates the weights:
//
//   tokens (B,T) → model → logits (B,T,V) → loss → gradients → AdamW → weights
//
// The batch is a function of seed and step alone, so the weights, the optimizer's moments and the
// number of steps done are all there is to know of a run: that is what a checkpoint holds, and a
// run that goes on from it computes bit for bit what it would have computed without the stop: on
// CPUs, with as many threads, and if its length is given in steps (where only minutes are given,
// the learning rate follows the clock).
//
// What a step does on its device is the same each time, on tensors that stay where they are: so on
// a GPU it becomes a CUDA graph (step_graph.hpp). Several processes may share the steps
// (world.hpp).
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "data/batches.hpp"
#include "data/dataset.hpp"
#include "nn/language_model.hpp"
#include "train/config.hpp"
#include "train/device.hpp"
#include "train/optimizer.hpp"
#include "train/profile.hpp"
#include "train/run_report.hpp"
#include "train/stability.hpp"
#include "train/step_graph.hpp"
#include "train/world.hpp"

namespace pararnn::train {

/// The trace of a profiled run, in its folder.
inline constexpr const char* kTraceFile = "trace.json";

/// Trains one model on one dataset; checkpoints and log go into the folder of the run.
class Trainer {
 public:
  /// A new model, at step 0, with the vocabulary of the dataset's tokenizer, to be trained on
  /// `device`, where its weights are drawn: of one seed each kind of device makes its own. What the
  /// run tells goes to `show` too (null: nowhere). Of a world, each rank trains on batches of its
  /// own, and rank 0 alone writes and shows. What is computed again is as `recompute` says, or else
  /// chosen for the memory at hand. Throws Error on settings that make no run.
  Trainer(const TrainConfig& config, const nn::ModelConfig& model_config,
          const data::Dataset& dataset, const std::filesystem::path& run,
          const torch::Device& device = torch::kCPU, std::FILE* show = nullptr,
          std::shared_ptr<World> world = std::make_shared<World>(),
          const std::optional<nn::RecomputePlan>& recompute = {});
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// Goes on from a checkpoint of the run, written on whatever device; newer ones are set aside.
  /// Throws Error if it is damaged, or if model, data or settings are not those it was trained
  /// with; another source of the cell is taken if that is asked for.
  void restore(const std::filesystem::path& checkpoint, bool replace_cell = false);

  /// Trains to the end, with validations and checkpoints. On SIGINT, SIGTERM or SIGHUP it stops
  /// early, with a checkpoint, and returns the signal's number; otherwise 0. Where `show` can no
  /// longer be written it stops with a checkpoint too, and throws Error. Throws Error when too many
  /// steps in a row were skipped (kMostSkippedInARow), and on a file that cannot be written; the
  /// checkpoints before stay as they are.
  int run();

  /// From now on run() profiles some of its first steps: the table is shown and logged, the trace
  /// is kTraceFile in the folder of the run.
  void profile();

  /// One step: forward, backward, update. If the loss or its gradient is not finite, the step is
  /// skipped: weights and moments stay as they are, and its batch and its place on the schedule
  /// are passed over. It waits for the device, which run() does not.
  StepReport train_step();

  /// So many steps; the host waits for the device behind the last alone. Returns its report.
  StepReport train_steps(int64_t count);

  /// From now on steps are graphs of `device`, as those of a GPU are of CUDA.
  void use_graphs(GraphDevice device);
  const StepGraph& graph() const { return graph_; }

  nn::LanguageModel& model() { return model_; }
  int64_t step() const { return step_; }

 private:
  /// A step that the device may still compute.
  struct QueuedStep {
    StepReport report;
    OnItsWayToHost loss_and_norm;
    std::chrono::steady_clock::time_point start;
  };
  void queue_step();
  void compute_step();
  GraphDevice cuda_graphs();
  StepReport take_report();
  void report_steps(size_t left = 0);
  bool finished() const;
  double progress() const;
  double seconds() const;
  double seconds_of_first() const;
  double seconds_left() const;
  torch::Tensor starts_of_documents(const torch::Tensor& inputs) const;
  void validate();
  void tell(StepReport step);
  void save_checkpoint();
  [[noreturn]] void give_up(const StepReport& last) const;
  const std::string& content();

  TrainConfig config_;
  data::Dataset dataset_;
  std::filesystem::path run_;
  torch::Device device_;
  std::shared_ptr<World> world_;
  std::FILE* show_;
  std::optional<c10::Stream> stream_;  // of a GPU, as a graph needs another than the default one
  nn::LanguageModel model_;
  AdamW optimizer_;
  data::PrefetchedBatches batches_;
  torch::Tensor tokens_;         // (accumulate,2,B,T): inputs and, one token on, targets
  torch::Tensor learning_rate_;  // (), double
  torch::Tensor measured_;       // (2), double: loss and norm of the gradient
  StepGraph graph_;
  std::deque<QueuedStep> queued_;  // steps of which nothing was told yet
  std::chrono::steady_clock::time_point last_report_{};
  std::optional<RunReport> report_;  // while it runs
  std::string content_;              // of the data, as checksum_of_content tells it, once asked for
  std::optional<RunProfiler> profiler_;

  int64_t step_ = 0;              // steps done
  Stability stability_;           // of those that were told
  int64_t checkpoint_step_ = -1;  // of the newest checkpoint; -1: none
  int64_t log_bytes_ = 0;         // of the log at that checkpoint
  double earlier_seconds_ = 0;    // that the run took before `start_`
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace pararnn::train
