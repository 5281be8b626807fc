#include "train/memory.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <new>
#include <ranges>
#include <vector>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "nn/mixer.hpp"
#include "ops/cross_entropy/cross_entropy.hpp"
#include "train/device_memory.hpp"
#include "train/model_sizes.hpp"

namespace pararnn::train {
namespace {

constexpr double kSingle = 4, kToken = 8;  // bytes of a float32 number, and of a token in a tensor
// What a tensor takes beside its numbers, at the least: thin models of many layers have many.
constexpr double kTensor = 256;
constexpr double kTensorsOfBlock = 6, kTensorsOfModel = 2;  // beside the mixer

constexpr const char* kModelMend = "--width, --layers or --mlp-width";
constexpr const char* kBatchMend = "--batch or --length";
constexpr const char* kRecomputeMend = "--batch or --length, or --recompute block";

double bytes_of(torch::ScalarType type) { return static_cast<double>(c10::elementSize(type)); }

double bytes_of(const nn::Numbers& numbers, double bytes) {
  return bytes * numbers.in_precision + kSingle * numbers.in_float32;
}

/// The sum over a model's layers of what `of_layer` says of one with such a mixer.
template <class OfLayer>
double sum_of_layers(const nn::ModelConfig& config, OfLayer of_layer) {
  double sum = 0;
  for (const nn::MixerLayers& mixer : nn::sizes_of_mixers(config)) {
    sum += mixer.layers * of_layer(mixer.sizes);
  }
  return sum;
}

double tensor_count(const nn::ModelConfig& config) {
  return kTensorsOfModel + sum_of_layers(config, [](const nn::MixerSizes& mixer) {
           return kTensorsOfBlock + mixer.tensors;
         });
}

/// Bytes of a number for each parameter.
double bytes_for_parameters(const nn::ModelConfig& config, double bytes_of_number) {
  return bytes_of_number * parameter_count(config) + kTensor * tensor_count(config);
}

/// Numbers in the parameters that stay in float32 whatever the precision: those of mixers, norms
/// and residual scales.
double small_parameter_count(const nn::ModelConfig& config) {
  const double d = double(config.width);
  return d + sum_of_layers(config, [&](const nn::MixerSizes& mixer) {
           return mixer.parameters.in_float32 + 4 * d;
         });
}

/// Bytes of the parameters as a model computes with them, in a precision of `bytes`.
double bytes_for_weights(const nn::ModelConfig& config, double bytes) {
  return bytes_for_parameters(config, bytes) + (kSingle - bytes) * small_parameter_count(config);
}

/// Bytes for each token of a block in training.
struct BlockMemory {
  double kept;      // for the backward pass
  double backward;  // at the peak of its backward pass, what is kept included
};

/// In a block of which all is kept these are, in the order of nn/block.cpp: by the mixer the
/// stream, the branch that is added to it, and what the mixer says; by the MLP the stream, the
/// mixer's branch, their norm, the hidden channels before SwiGLU, twice, and behind it. Backward,
/// memory is highest where SwiGLU's gradient stands beside its input or, beside a small MLP, in the
/// mixer. What is computed again stands there as well, between what it was given and its results'
/// gradients.
BlockMemory memory_of_block(const nn::ModelConfig& config, const nn::MixerSizes& sizes,
                            nn::Recompute recompute, double bytes) {
  const double d = bytes * double(config.width), m = bytes * double(config.hidden_width());
  const double mixer = 2 * d + bytes_of(sizes.kept, bytes), mlp = 3 * d + 3 * m;
  const double backward = bytes_of(sizes.backward, bytes);
  if (recompute == nn::Recompute::kBlock) {
    return {d, d + std::max(mixer + mlp + 2 * m, mixer + d + backward)};
  }
  if (recompute == nn::Recompute::kMixer) {
    return {d + mlp, std::max(d + mlp + 2 * m, mixer + 3 * d + backward)};
  }
  return {mixer + mlp, std::max(mixer + mlp + 2 * m, mixer + backward)};
}

/// A moment of a step at which memory may be highest, in bytes.
struct Moment {
  double activations, logits, gradients;
  double total() const { return activations + logits + gradients; }
};

/// Where the backward pass of a block may take the most: as it goes from the last to the first of
/// the blocks that are treated alike, activations are given back and gradients come, so it is in
/// the first or the last of them with some mixer.
struct BlockMoment {
  double activations;      // bytes for each token
  int64_t blocks_to_come;  // of the backward pass, this one too
};

/// These moments, and the bytes that all blocks keep for each token.
std::pair<std::vector<BlockMoment>, double> moments_of_blocks(const nn::ModelConfig& config,
                                                              const nn::Pass& pass,
                                                              const nn::RecomputePlan& plan) {
  const double bytes = double(pass.activations.dtype().itemsize());
  const std::vector<nn::LayerRun> runs = nn::parse_layer_pattern(config.mixer);
  const std::vector<nn::MixerLayers> mixers = nn::sizes_of_mixers(config, pass);
  std::vector<BlockMoment> moments;
  double kept = 0;    // in the blocks before them
  int64_t first = 0;  // of them
  for (const auto& [count, recompute] :
       {std::pair{plan.blocks, nn::Recompute::kBlock},
        {plan.mixers, nn::Recompute::kMixer},
        {config.layers - plan.blocks - plan.mixers, nn::Recompute::kNothing}}) {
    if (count <= 0) continue;
    const auto kept_before = [&](int64_t end) {
      double sum = kept;
      for (const nn::MixerLayers& mixer : mixers) {
        sum += double(nn::layers_among(runs, mixer.mixer, end) -
                      nn::layers_among(runs, mixer.mixer, first)) *
               memory_of_block(config, mixer.sizes, recompute, bytes).kept;
      }
      return sum;
    };
    for (const nn::MixerLayers& mixer : mixers) {
      const int64_t before = nn::layers_among(runs, mixer.mixer, first);
      const int64_t until = nn::layers_among(runs, mixer.mixer, first + count);
      if (before == until) continue;
      const BlockMemory memory = memory_of_block(config, mixer.sizes, recompute, bytes);
      for (const int64_t number : {before, until - 1}) {
        const int64_t block = nn::layer_of(runs, mixer.mixer, number);
        moments.push_back({kept_before(block) + memory.backward, block + 1});
      }
    }
    kept = kept_before(first + count);
    first += count;
  }
  return {moments, kept};
}

/// What a layer holds of each token at once where no backward pass follows: in the mixer, or where
/// the MLP ends, when the mixer's state is there. Of all layers the most. `earlier`: how many
/// tokens of earlier pieces there are for each token.
double held_by_block(const nn::ModelConfig& config, const nn::Pass& pass, double earlier = 0) {
  const double bytes = double(pass.activations.dtype().itemsize());
  const double d = bytes * double(config.width), m = bytes * double(config.hidden_width());
  double most = d;
  for (const nn::MixerLayers& mixer : nn::sizes_of_mixers(config, pass)) {
    if (mixer.layers == 0) continue;
    most = std::max({most,
                     d + bytes_of(mixer.sizes.held, bytes) +
                         earlier * bytes_of(mixer.sizes.held_of_earlier, bytes),
                     3 * d + 3 * m + bytes_of(mixer.sizes.state_of_token, bytes)});
  }
  return most;
}

/// Bytes of the mask under which so many tokens look back, of so many pairs of a token and a key.
double bytes_for_mask(const nn::ModelConfig& config, const nn::Pass& pass, double tokens,
                      double pairs) {
  double numbers = 0;
  for (const auto& [mixer, sizes, layers] : nn::sizes_of_mixers(config, pass)) {
    if (layers == 0) continue;
    numbers = std::max(numbers, pairs * sizes.mask_of_pair + tokens * sizes.mask_of_token);
  }
  return double(pass.activations.dtype().itemsize()) * numbers;
}

/// What the states of a row take that has read so many tokens.
double bytes_for_states(const nn::ModelConfig& config, double tokens, double bytes) {
  return sum_of_layers(config, [&](const nn::MixerSizes& mixer) {
    return bytes_of(mixer.state, bytes) + tokens * bytes_of(mixer.state_of_token, bytes);
  });
}

/// The logits that the loss of so many tokens holds at once.
double logits_held(const nn::ModelConfig& config, double tokens, torch::ScalarType precision,
                   torch::DeviceType device) {
  constexpr double kMany = 1e15;  // beyond 64 bits there may be more
  const int64_t at_once = ops::tokens_at_once(static_cast<int64_t>(std::min(tokens, kMany)),
                                              config.vocabulary, precision, device);
  return bytes_of(precision) * double(at_once) * double(config.vocabulary);
}

std::string format_memory(double bytes) {
  for (const auto& [unit, name] :
       {std::pair{1e18, "EB"}, {1e15, "PB"}, {1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}}) {
    if (bytes >= unit) return fmt::format("{:.3g} {}", bytes / unit, name);
  }
  return fmt::format("{:.0f} bytes", bytes);
}

/// The parts from the largest, those that do not count left out.
std::string join_parts(const MemoryNeed& need) {
  MemoryNeed parts = need;
  std::ranges::stable_sort(parts, std::greater(), &MemoryPart::bytes);
  std::string text;
  for (const MemoryPart& part : parts) {
    if (part.bytes < 0.01 * parts.front().bytes) break;
    text += (text.empty() ? "" : ", ") + part.name + " " + format_memory(part.bytes);
  }
  return text;
}

/// The mends for the parts that are too much even without the others; or else for most of it.
std::string mend_of(const MemoryNeed& need, double available) {
  std::map<std::string, double> bytes;
  for (const MemoryPart& part : need) bytes[part.mend] += part.bytes;
  std::string mends;
  for (const auto& [mend, of_mend] : bytes) {
    if (of_mend > available) mends += (mends.empty() ? "" : ", and a smaller ") + mend;
  }
  if (!mends.empty()) return mends;
  return std::ranges::max_element(bytes, {}, [](const auto& entry) { return entry.second; })->first;
}

}  // namespace

double total_bytes(const MemoryNeed& need) {
  double sum = 0;
  for (const MemoryPart& part : need) sum += part.bytes;
  return sum;
}

MemoryNeed model_memory(const nn::ModelConfig& config, const std::string& mend) {
  return {{"weights", bytes_for_parameters(config, kSingle), mend}};
}

MemoryNeed training_memory(const nn::ModelConfig& config, const TrainConfig& options,
                           torch::DeviceType device, const nn::RecomputePlan& plan) {
  const torch::ScalarType precision = precision_dtype(options.precision);
  const double bytes = bytes_of(precision);
  const double tokens = double(options.batch) * double(options.length);
  const double weights = bytes_for_weights(config, bytes);
  const double single = bytes_for_parameters(config, kSingle);
  const double masters =  // of the weights that are rounded
      precision == torch::kFloat32
          ? 0
          : kSingle * (parameter_count(config) - small_parameter_count(config));
  const double d = double(config.width), layers = double(config.layers);
  const double matrix = double(config.vocabulary) * d;  // that makes the logits
  const double blocks = (weights - bytes * matrix * (config.tie_embedding ? 1 : 2)) / layers;

  // The gradient of the matrix that makes the logits comes with the loss, the others as the
  // backward pass goes.
  const nn::Pass pass{torch::dtype(precision).device(device), options.length, options.documents};
  const double mask =
      options.documents ? bytes_for_mask(config, pass, tokens, tokens * double(options.length)) : 0;
  const double of_earlier_batches = options.accumulate > 1 ? weights : 0;
  const auto [in_blocks, kept] = moments_of_blocks(config, pass, plan);
  std::vector<Moment> moments;
  for (const auto& [of_token, blocks_to_come] : in_blocks) {
    moments.push_back({tokens * of_token + mask, 0,
                       std::max(of_earlier_batches,
                                bytes * matrix + (layers - double(blocks_to_come)) * blocks)});
  }
  // The embedding's gradient, which is summed in float32, beside that of its output.
  const bool rounded = precision != torch::kFloat32;
  const bool added = config.tie_embedding || options.accumulate > 1;  // to another one
  moments.push_back({tokens * d * (bytes + (rounded ? kSingle : 0)), 0,
                     weights + matrix * ((rounded ? kSingle : 0) + (added ? bytes : 0))});
  // The loss: beside the logits the last hidden states, what they were made of, their gradient.
  moments.push_back({tokens * (kept + 3 * bytes * d) + mask,
                     logits_held(config, tokens, precision, device),
                     of_earlier_batches + kSingle * matrix});
  moments.push_back({0, 0, weights});  // the update
  const Moment highest = std::ranges::max(moments, {}, &Moment::total);
  // Where all blocks are computed again nothing is left to do; one block alone gains nothing.
  const char* mend = plan.blocks < config.layers && config.layers > 1 ? kRecomputeMend : kBatchMend;
  return {{"weights", weights, kModelMend},
          {"weights in float32", masters, kModelMend},
          {"gradients", highest.gradients, kModelMend},
          {"optimizer states", 2 * single, kModelMend},
          {"activations", highest.activations, mend},
          {"logits", highest.logits, mend},
          {"data", double(options.accumulate) * tokens * 2 * kToken, mend}};
}

nn::RecomputePlan choose_recompute(const nn::ModelConfig& config, const TrainConfig& options,
                                   torch::DeviceType device, double available) {
  const int64_t layers = config.layers;
  const nn::RecomputePlan nothing, mixers{.mixers = layers}, blocks{.blocks = layers};
  switch (recompute_choice(options.recompute)) {
    case RecomputeChoice::kNone:
      return nothing;
    case RecomputeChoice::kMixer:
      return mixers;
    case RecomputeChoice::kBlock:
      return blocks;
    case RecomputeChoice::kAuto:
      break;
  }
  const auto need = [&](const nn::RecomputePlan& plan) {
    return total_bytes(training_memory(config, options, device, plan));
  };
  const auto fits = [&](const nn::RecomputePlan& plan) {
    return need(plan) <= kShareToFill * available;
  };
  // To compute a mixer again takes the least time for the memory that it gives.
  if (fits(nothing)) return nothing;
  const bool of_mixers = fits(mixers);
  const auto plan_of = [&](int64_t count) {
    return of_mixers ? nn::RecomputePlan{.mixers = count}
                     : nn::RecomputePlan{.blocks = count, .mixers = layers - count};
  };
  const auto counts = std::views::iota(int64_t{1}, layers + 1);
  const auto found =
      std::ranges::partition_point(counts, [&](int64_t count) { return !fits(plan_of(count)); });
  if (found != counts.end()) return plan_of(*found);
  return std::ranges::min({nothing, mixers, blocks}, {}, need);
}

int64_t largest_batch(const nn::ModelConfig& config, TrainConfig options, torch::DeviceType device,
                      double available) {
  constexpr int64_t kMost = int64_t{1} << 49;  // more than any machine takes
  const auto fits = [&](int64_t batch) {
    options.batch = batch;
    const nn::RecomputePlan plan = choose_recompute(config, options, device, available);
    return total_bytes(training_memory(config, options, device, plan)) <= kShareToFill * available;
  };
  const auto batches = std::views::iota(int64_t{1}, kMost);
  return *std::ranges::partition_point(batches, fits) - 1;
}

void run_within_memory(const nn::ModelConfig& config, const TrainConfig& options,
                       const torch::Device& device,
                       const std::function<void(const nn::RecomputePlan&)>& action) {
  const nn::RecomputePlan plan =
      choose_recompute(config, options, device.type(), available_memory(device));
  run_within_memory(training_memory(config, options, device.type(), plan), device,
                    [&] { action(plan); });
}

std::string describe(const nn::RecomputePlan& plan, int64_t layers) {
  if (plan == nn::RecomputePlan{}) return "none";
  std::string text;
  if (plan.blocks > 0) text = fmt::format("{} of {} blocks", plan.blocks, layers);
  if (plan.mixers > 0) {
    text += fmt::format("{}the mixers of {}{}", text.empty() ? "" : ", ", plan.mixers,
                        text.empty() ? fmt::format(" of {} blocks", layers) : " more");
  }
  return text;
}

MemoryNeed evaluation_memory(const nn::ModelConfig& config, const EvaluationOptions& options,
                             torch::ScalarType precision, int64_t text_tokens,
                             torch::DeviceType device) {
  const double predictions = std::max(double(text_tokens) - 1, 1.0);
  const double context = double(options.context > 0 ? options.context : options.length);
  const double rows = std::clamp(std::floor(predictions / context), 1.0, double(options.batch));
  const double tokens = rows * std::min({double(options.length), context, predictions});
  const double bytes = bytes_of(precision);
  const auto steps = static_cast<int64_t>(tokens / rows);
  const nn::Pass pass{torch::dtype(precision).device(device), steps, options.documents};
  // Windows of several pieces: the states before the last piece, and those after it.
  const double window = std::min(context, predictions);
  const double before = window - double(options.length);
  const double states = before > 0 ? 2 * rows * bytes_for_states(config, before, bytes) : 0;
  const double earlier = std::max(before, 0.0) * rows / tokens;
  // The mask of the last piece, which may be short, or of the one before. While it is made, a byte
  // more for each of its numbers.
  const double last = before > 0 ? std::fmod(window - 1, double(options.length)) + 1 : window;
  const double pairs = rows * std::max(last * window, double(options.length) * (window - last));
  const double mask =
      before > 0 || options.documents ? bytes_for_mask(config, pass, tokens, pairs) : 0;
  // One after the other.
  const double of_loss =
      tokens * bytes * double(config.width) + logits_held(config, tokens, precision, device);
  const double of_blocks =
      mask + std::max(mask / bytes, tokens * held_by_block(config, pass, earlier));
  return {of_loss > of_blocks ? MemoryPart{"logits", of_loss, kBatchMend}
                              : MemoryPart{"activations", of_blocks, kBatchMend},
          {"states", states, "--batch or --context"},
          {"data", tokens * kToken, kBatchMend}};
}

MemoryNeed generation_memory(const nn::ModelConfig& config, torch::ScalarType precision,
                             int64_t prompt_tokens, int64_t rows, int64_t tokens_to_come,
                             torch::DeviceType device) {
  const double tokens = double(prompt_tokens);
  const double bytes = bytes_of(precision);
  const double logits = bytes * double(config.vocabulary);
  const double activations = held_by_block(
      config, {torch::dtype(precision).device(device), std::max<int64_t>(prompt_tokens, 1)});
  const double reading = tokens * std::max(logits, activations);
  // Those of the prompts, with room for what is to come; then, when all are read, those that
  // decoding goes on with.
  const double states =
      double(rows) * bytes_for_states(config, tokens + double(tokens_to_come), bytes);
  return {{logits > activations ? "logits" : "activations", reading, "--prompt"},
          {"states", states + std::max(states - reading, 0.0), "--batch, --prompt or --tokens"},
          {"rows", double(rows - 1) * 2 * logits, "--batch"}};
}

MemoryNeed scan_memory(const std::string& cell, int64_t batch, int64_t steps, int64_t channels,
                       double bytes) {
  const CellDefinition& sizes = find_cell(cell);
  const double rows = double(batch) * double(channels), numbers = rows * double(steps);
  return {{"sequences and gradients", 2 * bytes * numbers * (sizes.inputs + 1),
           "batch, number of steps or number of channels"},
          {"states", bytes * rows * sizes.state, "batch or number of channels"}};
}

void require_memory(const MemoryNeed& need, const std::string& device, double available) {
  const double total = total_bytes(need);
  if (total <= available) return;
  throw NotEnoughMemory(fmt::format(
      "not enough memory on {}: about {} are needed ({}), and {} are free; give a smaller {}",
      device, format_memory(total), join_parts(need), format_memory(available),
      mend_of(need, available)));
}

void require_memory(const MemoryNeed& need, const torch::Device& device) {
  require_memory(need, device.str(), available_memory(device));
}

void run_within_memory(const MemoryNeed& need, const torch::Device& device,
                       const std::function<void()>& action) {
  require_memory(need, device);
  try {
    action();
  } catch (const std::exception& error) {
    const std::string out_of_memory = describe_out_of_memory(error);
    if (out_of_memory.empty()) throw;
    throw NotEnoughMemory(fmt::format("{}, of which about {} are needed ({}); give a smaller {}",
                                      out_of_memory, format_memory(total_bytes(need)),
                                      join_parts(need), mend_of(need, kUnlimited)));
  }
}

std::string describe_out_of_memory(const std::exception& error) {
  const std::string_view text = error.what();
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr)
    return "the GPU has not enough memory";
  const bool out_of_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                             dynamic_cast<const std::length_error*>(&error) != nullptr ||
                             text.find("can't allocate memory") != text.npos ||
                             text.find("out of memory") != text.npos ||
                             text.find("Storage size calculation overflowed") != text.npos;
  return out_of_memory ? "this machine has not enough memory" : "";
}

}  // namespace pararnn::train
