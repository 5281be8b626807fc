// Everything that decides how a run goes, in one struct. One table (for_each_field) gives each
// field its name, meaning and range; the program's options, the JSON in a checkpoint and the checks
// on resume come from it.
#pragma once

#include <torch/types.h>

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "data/dataset.hpp"
#include "pararnn/plan.hpp"

namespace pararnn::train {

struct TrainConfig {
  std::string data;
  double held_out = data::kHeldOutShare;
  int64_t batch = 16;
  int64_t length = 256;
  int64_t accumulate = 1;
  bool documents = false;
  bool overfit = false;
  int64_t steps = 0;
  double minutes = 0;
  double learning_rate = 3e-3;
  double learning_rate_floor = 0.05;
  double warmup = 0.03;
  std::string schedule = "cosine";
  double decay = 0.2;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double weight_decay = 0.1;
  double clip = 1.0;
  double z_loss = 0;
  std::string precision = "float32";
  std::string recompute = "auto";
  std::string plan = "auto";
  std::string graph = "auto";
  double tolerance = 0;
  int64_t seed = 0;
  int64_t validate_every = 500;
  int64_t validation_tokens = 200'000;
  int64_t checkpoint_every = 500;
  int64_t keep = 3;
  int64_t keep_every = 0;
  int64_t log_every = 10;
};

/// What --graph may be.
inline constexpr std::string_view kGraphNames[] = {"auto", "off"};

/// What is said and asked of one field.
struct Field {
  std::string_view meaning;
  double least = 0, most = 0;  // of a number
  bool fixed = false;          // a resumed run cannot change it
};

/// Calls visit(name, value, Field) for each field of `config`, a TrainConfig or const TrainConfig.
template <class Config, class Visit>
void for_each_field(Config& config, Visit&& visit) {
  constexpr double kAny = 1e15;
  constexpr bool kFixed = true;
  visit("data", config.data,
        Field{"what to train on: a text file, a folder of text files, or a folder that `pararnn "
              "tokenize` made"});
  visit(
      "held_out", config.held_out,
      Field{"share of the text that is kept for validation (text only: shards are divided already)",
            0, 0.99, kFixed});
  visit("batch", config.batch, Field{"sequences in a batch", 1, kAny, kFixed});
  visit("length", config.length, Field{"tokens in a sequence", 1, kAny, kFixed});
  visit("accumulate", config.accumulate,
        Field{"batches whose gradients make one step", 1, kAny, kFixed});
  visit(
      "documents", config.documents,
      Field{"keep documents apart: the state begins anew at each token that ends a document, which "
            "the next one begins with",
            0, 1, kFixed});
  visit("overfit", config.overfit,
        Field{"train on the first batch again and again: its loss must fall to nearly 0 if model "
              "and settings can learn at all",
              0, 1, kFixed});
  visit("steps", config.steps, Field{"steps to train; 0: until --minutes are over", 0, kAny});
  visit(
      "minutes", config.minutes,
      Field{
          "minutes to train, resumed parts included; 0: until --steps are done. With --steps too, "
          "whichever ends first",
          0, kAny});
  visit("learning_rate", config.learning_rate, Field{"learning rate after warm-up", 0, kAny});
  visit("learning_rate_floor", config.learning_rate_floor,
        Field{"learning rate at the end, as a share of --learning-rate", 0, 1});
  visit("warmup", config.warmup,
        Field{"share of the run in which the learning rate rises from 0", 0, 0.99});
  visit("schedule", config.schedule,
        Field{"how the learning rate falls after warm-up: cosine, from there to the end, or wsd "
              "(warm-up, stable, decay), in a line at the end"});
  visit("decay", config.decay,
        Field{"share of the run in which the learning rate falls, with --schedule wsd", 0, 1});
  visit("beta1", config.beta1, Field{"AdamW: decay of the mean of gradients", 0, 0.999999});
  visit("beta2", config.beta2, Field{"AdamW: decay of the mean of squared gradients", 0, 0.999999});
  visit(
      "weight_decay", config.weight_decay,
      Field{
          "AdamW: weight decay, on matrices only (not on norms, biases, recurrent weights, scales)",
          0, kAny});
  visit("clip", config.clip, Field{"largest norm of the gradient; 0: no bound", 0, kAny});
  visit("z_loss", config.z_loss,
        Field{"weight of the mean squared log-partition in the loss; 0: none", 0, kAny});
  visit(
      "precision", config.precision,
      Field{"dtype of the model's matrices and activations: float32, or bfloat16 (faster where the "
            "processor has it), with masters in float32"});
  visit("recompute", config.recompute,
        Field{"what the backward pass computes again, to keep fewer activations: none; mixer, of "
              "each block what comes before its MLP; block, all; auto: as little as fits into the "
              "device's memory"});
  visit("plan", config.plan,
        Field{"how a sequence is cut to run in parallel: auto, planner, sequential, speculative or "
              "newton"});
  visit(
      "graph", config.graph,
      Field{
          "how a GPU is given its steps: auto, as one CUDA graph once their kernels and plans are "
          "known, or off, kernel by kernel"});
  visit("tolerance", config.tolerance,
        Field{"mismatch allowed where a sequence is cut, relative to 1 + |state|; 0: 1e-6", 0,
              kLargestTolerance});
  visit("seed", config.seed,
        Field{"seed of the initial weights and the order of the data", 0, kAny, kFixed});
  visit("validate_every", config.validate_every,
        Field{"steps between validations on the held-out text; 0: at the end only", 0, kAny});
  visit("validation_tokens", config.validation_tokens,
        Field{"tokens of the held-out text, evenly spread, in a validation; 0: all", 0, kAny});
  visit("checkpoint_every", config.checkpoint_every,
        Field{"steps between checkpoints; 0: at the end only", 0, kAny});
  visit("keep", config.keep, Field{"checkpoints kept, the newest ones", 1, kAny});
  visit("keep_every", config.keep_every,
        Field{"steps between checkpoints that are kept for good, beside those; 0: none", 0, kAny});
  visit("log_every", config.log_every, Field{"steps between lines of the log", 1, kAny});
}

/// The name of a field or key as an option of the program: "learning_rate" → "--learning-rate".
std::string option_name(std::string_view key);

/// The dtype that --precision names. Throws Error on another name.
torch::ScalarType precision_dtype(const std::string& precision);

/// What --recompute names.
enum class RecomputeChoice { kNone, kMixer, kBlock, kAuto };
inline constexpr std::array kRecomputeNames = {"none", "mixer", "block", "auto"};  // in that order
/// Throws Error on another name.
RecomputeChoice recompute_choice(const std::string& recompute);

nlohmann::json to_json(const TrainConfig& config);
/// A missing key has its default: a run may be older than an option. Throws Error that names the
/// option for an unknown key, a wrong type or a value out of range.
TrainConfig train_config_from_json(const nlohmann::json& json);
/// Throws Error that names the option for a value out of range, and when nothing bounds the run.
void require_valid(const TrainConfig& config);
/// Throws Error that names the option if `wanted` cannot continue a run that was started with
/// `stored`.
void require_resumable(const TrainConfig& stored, const TrainConfig& wanted);

}  // namespace pararnn::train
