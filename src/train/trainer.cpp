#include "train/trainer.hpp"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "data/tokenizer.hpp"
#include "kernels/cuda/plan_trial.hpp"
#include "kernels/scan_statistics.hpp"
#include "nn/model_files.hpp"
#include "nn/safetensors.hpp"
#include "ops/cuda_graph.hpp"
#include "train/checkpoint.hpp"
#include "train/device.hpp"
#include "train/device_memory.hpp"
#include "train/evaluate.hpp"
#include "train/memory.hpp"
#include "train/run_state.hpp"
#include "train/schedule.hpp"
#include "train/signals.hpp"

namespace pararnn::train {
namespace {

constexpr const char* kOptimizerFile = "optimizer.safetensors";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

nn::LanguageModel make_model(const TrainConfig& config, nn::ModelConfig model_config,
                             int64_t vocabulary, const torch::Device& device,
                             const std::optional<nn::RecomputePlan>& recompute) {
  require_valid(config);
  torch::manual_seed(static_cast<uint64_t>(config.seed));
  model_config.vocabulary = vocabulary;
  const nn::RecomputePlan plan =
      recompute ? *recompute
                : choose_recompute(model_config, config, device.type(), available_memory(device));
  nn::LanguageModel model(model_config, device);
  model->set_scan_options({.plan = config.plan, .tolerance = config.tolerance});
  model->set_recompute(plan);
  return model;
}

/// Rounds the model's parameters, of which the masters are what they were before.
std::vector<Parameter> round_to_precision(nn::LanguageModel& model, torch::ScalarType precision) {
  const auto masters = nn::parameters_of(model);
  model->to_precision(precision);
  std::vector<Parameter> parameters;
  for (const auto& [name, tensor] : model->named_parameters().pairs())
    parameters.push_back({name, tensor, model->decays(name, tensor), masters.at(name)});
  return parameters;
}

void require_same_model(const nn::ModelConfig& stored, const nn::ModelConfig& wanted,
                        bool replace_cell) {
  std::map<std::string, nlohmann::json> before;
  nn::for_each_used_option(stored,
                           [&](std::string_view key, const auto& value, const nn::Option& option) {
                             before[nn::name_of(key, option)] = value;
                           });
  nn::for_each_used_option(
      wanted, [&](std::string_view key, const auto& value, const nn::Option& option) {
        const std::string name = nn::name_of(key, option);
        const nlohmann::json &now = value, &then = before[name];
        if (option.is_cell) {
          const CellDefinition& old = find_cell(then.get<std::string>());
          const CellDefinition& cell = find_cell(now.get<std::string>());
          require(replace_cell || old.name != cell.name || old.digest == cell.digest,
                  "{}: the source of {} is not the one that the run to resume was trained with ({} "
                  "now, {} then): leave the option out to go on with that, or give --replace-cell",
                  name, cell.name, cell.digest, old.digest);
        }
        require(now == then || (option.is_cell && replace_cell),
                "{} is {}, but the run to resume was started with {}: leave the option out, or "
                "start a new run",
                name, now.dump(), then.dump());
      });
}

Schedule schedule_of(const TrainConfig& config) {
  return {config.learning_rate, config.learning_rate_floor, config.warmup,
          schedule_shape(config.schedule), config.decay};
}

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

Trainer::Trainer(const TrainConfig& config, const nn::ModelConfig& model_config,
                 const data::Dataset& dataset, const std::filesystem::path& run,
                 const torch::Device& device, std::FILE* show, std::shared_ptr<World> world,
                 const std::optional<nn::RecomputePlan>& recompute)
    : config_(config),
      dataset_(dataset),
      run_(run),
      device_(device),
      world_(std::move(world)),
      show_(world_->is_writer() ? show : nullptr),
      stream_(own_stream(device)),
      model_(make_model(config, model_config, dataset.tokenizer->vocabulary_size(), device,
                        recompute)),
      optimizer_(round_to_precision(model_, precision_dtype(config.precision)),
                 {config.beta1, config.beta2, /*epsilon=*/1e-8, config.weight_decay, config.clip}),
      batches_(data::BatchSampler(dataset.training, config.batch, config.length,
                                  static_cast<uint64_t>(config.seed)),
               world_->size()),
      tokens_(torch::empty({config.accumulate, 2, config.batch, config.length},
                           torch::dtype(torch::kInt64).device(device))),
      learning_rate_(torch::empty({}, torch::dtype(torch::kFloat64).device(device))),
      measured_(torch::empty({2}, torch::dtype(torch::kFloat64).device(device))),
      graph_([this] { compute_step(); }, device.is_cuda() ? cuda_graphs() : GraphDevice{}) {}

int Trainer::run() {
  const StopSignals signals;
  content();
  start_ = std::chrono::steady_clock::now();
  report_.emplace(RunReport::Options{world_->is_writer() ? run_ / kLogFile : "", log_bytes_,
                                     config_.log_every, config_.steps,
                                     dataset_.tokenizer->name() == "bytes", show_});
  report_->start({{"step", step_},
                  {"options", to_json(config_)},
                  {"model", nn::to_json(model_->config())},
                  {"parameters", static_cast<int64_t>(parameter_count(model_->config()))},
                  {"recompute", describe(model_->recompute(), model_->config().layers)},
                  {"device", describe(device_)}});
  while (!finished()) {
    if (const int64_t signal = world_->largest(signals.received())) {
      save_checkpoint();
      report_->say(fmt::format("stopped after step {}; --resume goes on from here", step_));
      return static_cast<int>(signal);
    }
    const std::string& failure = report_->failure();
    if (world_->any(!failure.empty())) {
      save_checkpoint();
      throw Error(fmt::format(
          "cannot write to standard output{}: stopped after step {}; --resume goes on from here",
          failure.empty() ? "" : " (" + failure + ")", step_));
    }
    if (profiler_) profiler_->before_step(graph_.settled());
    queue_step();
    report_steps(device_.is_cpu() ? 0 : 1);
    if (profiler_) {
      if (const auto profile = profiler_->after_step()) report_->profile(step_, *profile);
    }
    if (finished()) break;
    if (due(step_, config_.validate_every)) validate();
    if (due(step_, config_.checkpoint_every) || due(step_, config_.keep_every)) save_checkpoint();
  }
  validate();
  save_checkpoint();
  if (profiler_ && !profiler_->finished()) {
    report_->say(
        fmt::format("--profile: the run ended after {} steps, which are too few for a profile: it "
                    "takes at least {}, and {} more where plans are learned",
                    step_, RunProfiler::kStepsBefore + RunProfiler::kSteps,
                    RunProfiler::kMostStepsBefore - RunProfiler::kStepsBefore));
  }
  return 0;
}

void Trainer::use_graphs(GraphDevice device) {
  graph_ = StepGraph([this] { compute_step(); }, std::move(device));
}

GraphDevice Trainer::cuda_graphs() {
  GraphDevice graphs;
  if (config_.graph != "off") graphs.capture = ops::capture_graph;
  graphs.explored = calls_that_explored;
  graphs.on_replay = count_replay;
  graphs.release_memory = [this] {
    optimizer_.zero_gradients();
    record_forward_statistics({});  // each keeps a workspace
    record_backward_statistics({});
    release_cached_memory(device_);
  };
  return graphs;
}

void Trainer::profile() { profiler_.emplace(device_, run_ / kTraceFile); }

StepReport Trainer::train_step() { return train_steps(1); }

StepReport Trainer::train_steps(int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    queue_step();
    if (queued_.size() > 1) take_report();
  }
  return take_report();
}

/// Queues a step on the device.
void Trainer::queue_step() {
  const auto start = std::chrono::steady_clock::now();
  const OnStream on_stream(stream_);
  StepReport report{.tokens = tokens_.select(1, 0).numel() * world_->size(),
                    .learning_rate = learning_rate(schedule_of(config_), progress())};
  for (int64_t i = 0; i < config_.accumulate; ++i) {
    const int64_t number = (config_.overfit ? 0 : step_ * config_.accumulate) + i;
    const data::Batch batch = batches_.batch(number * world_->size() + world_->rank());
    send_tokens(batch.inputs, tokens_[i][0]);
    send_tokens(batch.targets, tokens_[i][1]);
  }
  learning_rate_.fill_(report.learning_rate);
  graph_.run();
  report.step = ++step_;
  queued_.push_back({report, OnItsWayToHost(measured_), start});
}

/// What a step does on its device: from `tokens_` and `learning_rate_` to weights and `measured_`.
/// It may be captured, so nothing else may differ from step to step.
void Trainer::compute_step() {
  const auto share = 1 / static_cast<double>(config_.accumulate);
  const ops::CrossEntropyOptions options{.z_loss = config_.z_loss, .scale = share};
  optimizer_.zero_gradients();
  torch::Tensor mean_loss = torch::zeros({}, torch::dtype(torch::kFloat64).device(device_));
  for (int64_t i = 0; i < config_.accumulate; ++i) {
    const torch::Tensor inputs = tokens_[i][0], targets = tokens_[i][1];  // (B,T)
    const ops::CrossEntropy loss =
        model_->loss_of_whole(inputs, targets, options, starts_of_documents(inputs));
    loss.total.backward();
    mean_loss.add_(loss.cross_entropy, share);
  }
  std::vector<torch::Tensor> of_ranks = optimizer_.gradients();
  of_ranks.push_back(mean_loss);
  world_->average(of_ranks);
  const torch::Tensor norm = optimizer_.step(learning_rate_, mean_loss);
  model_->clip_weights();
  measured_.copy_(torch::stack({mean_loss, norm.to(torch::kFloat64)}));
}

/// What the first step of those that are queued has come to. Here the host waits for a GPU.
StepReport Trainer::take_report() {
  const QueuedStep step = std::move(queued_.front());
  queued_.pop_front();
  StepReport report = step.report;
  const torch::Tensor& measured = step.loss_and_norm.wait();
  report.loss = measured[0].item<double>();
  report.gradient_norm = measured[1].item<double>();
  report.skipped = !std::isfinite(report.loss) || !std::isfinite(report.gradient_norm);
  const auto now = std::chrono::steady_clock::now();
  report.seconds = std::chrono::duration<double>(now - std::max(step.start, last_report_)).count();
  last_report_ = now;
  return report;
}

/// Reports the queued steps but for the last `left`, which a GPU still computes.
void Trainer::report_steps(size_t left) {
  if (!graph_.failure().empty()) {
    report_->warning(step_, fmt::format("steps are launched kernel by kernel, as they cannot be a "
                                        "CUDA graph: {}",
                                        graph_.failure()));
  }
  while (queued_.size() > left) tell(take_report());
}

/// (B,T), bool, of tokens (B,T); undefined where documents are not kept apart.
torch::Tensor Trainer::starts_of_documents(const torch::Tensor& inputs) const {
  if (!config_.documents) return {};
  return inputs == dataset_.tokenizer->end_of_document();
}

void Trainer::validate() {
  report_steps();
  graph_.forget();  // whose memory may be needed
  if (dataset_.held_out->size() < 2 || !world_->is_writer()) return;
  const OnStream on_stream(stream_);
  report_->validation(step_, evaluate(model_, *dataset_.held_out, *dataset_.tokenizer,
                                      {.batch = config_.batch,
                                       .length = config_.length,
                                       .documents = config_.documents,
                                       .tokens = config_.validation_tokens}));
}

void Trainer::save_checkpoint() {
  report_steps();
  if (step_ == checkpoint_step_) return;
  if (!world_->is_writer()) {
    checkpoint_step_ = step_;
    return;
  }
  const auto write_files = [&](const std::filesystem::path& folder) {
    nn::save_language_model(folder, model_->config(), optimizer_.weights());
    data::save_tokenizer(*dataset_.tokenizer, folder);
    nn::save_safetensors(folder / kOptimizerFile, {.tensors = optimizer_.state(), .metadata = {}});
    save_run_state(folder, {step_, seconds(), report_->log_bytes(), describe(device_),
                            dataset_.fingerprint, content(), stability_, config_});
  };
  // While steps are skipped, an older checkpoint may be the one to go back to.
  const int64_t newest =
      stability_.skipped_in_a_row > 0 ? std::numeric_limits<int64_t>::max() : config_.keep;
  const WrittenCheckpoint written =
      write_checkpoint(run_, step_, {newest, config_.keep_every}, write_files);
  checkpoint_step_ = step_;
  for (const std::string& warning : written.warnings) report_->warning(step_, warning);
}

/// Reports a step, judged beside those before it.
void Trainer::tell(StepReport step) {
  if (step.skipped) {
    stability_.add_skipped();
  } else {
    step.z_score = stability_.add(step.loss);
  }
  step.skipped_steps = stability_.skipped;
  report_->step(step, seconds(), seconds_left());
  if (stability_.skipped_in_a_row >= kMostSkippedInARow) give_up(step);
}

/// Ends a run whose last steps were all skipped. Their weights are those of a checkpoint that was
/// written after the step before them, so that one is as bad.
void Trainer::give_up(const StepReport& last) const {
  const int64_t good_steps = last.step - stability_.skipped_in_a_row;
  std::string good;
  for (const std::filesystem::path& checkpoint : list_checkpoints(run_)) {
    if (step_of(checkpoint) < good_steps) good = checkpoint.string();
  }
  throw Error(fmt::format(
      "the last {} steps were skipped (step {}: {}); {} with a lower --learning-rate",
      stability_.skipped_in_a_row, last.step, describe_skip(last),
      good.empty()
          ? "start again"
          : fmt::format("the last good checkpoint is {0}: go on from it, --resume {0},", good)));
}

void Trainer::restore(const std::filesystem::path& path, bool replace_cell) {
  const std::filesystem::path checkpoint = find_checkpoint(path);
  verify_checkpoint(checkpoint, /*manifest_needed=*/true);
  const RunState state = load_run_state(checkpoint);
  const nn::LanguageModel stored = nn::load_language_model(checkpoint);
  require_resumable(state.options, config_);
  require_same_model(stored->config(), model_->config(), replace_cell);
  require(state.fingerprint == dataset_.fingerprint &&
              (state.content.empty() || state.content == content()),
          "--data: {} is not what the run to resume was trained on ({}, as it was then): bring "
          "that back, or start a new run",
          config_.data, state.options.data);
  optimizer_.load_weights(nn::parameters_of(stored));
  optimizer_.load_state(nn::load_safetensors(checkpoint / kOptimizerFile).tensors);
  step_ = checkpoint_step_ = state.step;
  stability_ = state.stability;
  log_bytes_ = state.log_bytes;
  earlier_seconds_ = state.seconds;
  Progress progress(show_);
  if (world_->is_writer()) {
    for (const std::string& warning : set_newer_checkpoints_aside(checkpoint))
      progress.say("warning: " + warning);
  }
  progress.say("going on from " + checkpoint.string());
  if (state.device != describe(device_)) {
    progress.say(fmt::format("on {} instead of {}, so the last digits may come out differently",
                             describe(device_), state.device));
  }
}

const std::string& Trainer::content() {
  if (content_.empty()) content_ = data::checksum_of_content(dataset_);
  return content_;
}

bool Trainer::finished() const {
  return (config_.steps > 0 && step_ >= config_.steps) ||
         (config_.minutes > 0 && seconds_of_first() >= config_.minutes * 60);
}

/// The share of the run that is done when the step at hand is done: of its steps or, without
/// --steps, of its minutes.
double Trainer::progress() const {
  if (config_.steps > 0) return static_cast<double>(step_ + 1) / static_cast<double>(config_.steps);
  return seconds_of_first() / (config_.minutes * 60);
}

double Trainer::seconds() const { return earlier_seconds_ + seconds_since(start_); }

/// By which all ranks go.
double Trainer::seconds_of_first() const { return world_->of_first(seconds()); }

double Trainer::seconds_left() const {
  double left = std::numeric_limits<double>::infinity();
  if (config_.steps > 0 && step_ > 0) {
    left = seconds() / static_cast<double>(step_) * static_cast<double>(config_.steps - step_);
  }
  if (config_.minutes > 0) left = std::min(left, config_.minutes * 60 - seconds());
  return left;
}

}  // namespace pararnn::train
