#include "train/memory.hpp"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <new>
#include <sstream>

#include "base/error.hpp"
#include "cells/cell_registry.hpp"
#include "ops/cross_entropy/cross_entropy.hpp"
#include "pararnn/plan.hpp"

namespace pararnn::train {
namespace {

/// Of what LibTorch counts of its allocations on a GPU: all of them.
constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

namespace fs = std::filesystem;

constexpr double kSingle = 4, kToken = 8;  // bytes of a float32 number, and of a token in a tensor
// What a tensor takes beside its numbers, at the least: thin models of many layers have many.
constexpr double kTensor = 256;
constexpr double kTensorsOfBlock = 13, kTensorsOfModel = 2;

constexpr const char* kModelMend = "--width, --layers or --mlp-width";
constexpr const char* kBatchMend = "--batch or --length";

double bytes_of(torch::ScalarType type) { return static_cast<double>(c10::elementSize(type)); }

/// The cell's sizes, as numbers that may be multiplied.
struct CellSizes {
  double inputs, learned_inputs, state, params;
};
CellSizes sizes_of(const std::string& name) {
  const CellDefinition& cell = find_cell(name);
  return {double(cell.inputs), double(cell.inputs) - double(cell.side_inputs.size()),
          double(cell.state), double(cell.params)};
}

double tensor_count(const nn::ModelConfig& config) {
  return kTensorsOfModel + kTensorsOfBlock * double(config.layers);
}

/// Bytes of a number for each parameter.
double bytes_for_parameters(const nn::ModelConfig& config, double bytes_of_number) {
  return bytes_of_number * parameter_count(config) + kTensor * tensor_count(config);
}

/// Numbers in the parameters that stay in float32 whatever the precision: biases, recurrent
/// weights, norms and residual scales.
double small_parameter_count(const nn::ModelConfig& config) {
  const CellSizes cell = sizes_of(config.cell);
  const double d = double(config.width);
  return double(config.layers) * (cell.learned_inputs + cell.params + 5) * d + d;
}

/// Bytes of the parameters as a model computes with them, in a precision of `bytes`.
double bytes_for_weights(const nn::ModelConfig& config, double bytes) {
  return bytes_for_parameters(config, bytes) + (kSingle - bytes) * small_parameter_count(config);
}

/// What a layer keeps of each token for the backward pass: the residual stream before both
/// branches, and all else that a derivative is made from; of the scan, some states in float32.
double kept_by_block(const nn::ModelConfig& config, double bytes) {
  const CellSizes cell = sizes_of(config.cell);
  const double d = double(config.width), m = double(config.hidden_width());
  const double mixer = (7 + cell.inputs) * d, mlp = 2 * d + 3 * m;
  return kSingle * cell.state / double(kChunkUnit) * d + bytes * (2 * d + mixer + mlp);
}

/// What a layer holds of each token at once where no backward pass follows: in the scan, or where
/// the MLP ends.
double held_by_block(const nn::ModelConfig& config, double bytes) {
  const double d = double(config.width), m = double(config.hidden_width());
  const double scan = bytes * (6 + sizes_of(config.cell).inputs) * d;
  const double mlp = bytes * (3 * d + 3 * m);
  return config.layers > 0 ? std::max(scan, mlp) : bytes * d;
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

/// The number behind `key` in lines "key number", as /proc/meminfo and memory.stat have them; or
/// `otherwise`.
double number_in(const fs::path& file, const std::string& key, double otherwise) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    double value = 0;
    if (words >> name && name == key && words >> value) return value;
  }
  return otherwise;
}

/// The number that is all of a file, or `otherwise`: without a file, and for the word "max".
double number_of(const fs::path& file, double otherwise) {
  std::ifstream text(file);
  double value = 0;
  return text >> value ? value : otherwise;
}

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

/// What the control group `group` and those above it leave. Files of the second version of control
/// groups, or of the first.
double left_by_groups(const fs::path& root, const fs::path& group, bool second) {
  double least = kUnlimited;
  for (fs::path folder = root / group.relative_path();; folder = folder.parent_path()) {
    const double limit =
        number_of(folder / (second ? "memory.max" : "memory.limit_in_bytes"), kUnlimited);
    const double used =
        number_of(folder / (second ? "memory.current" : "memory.usage_in_bytes"), 0);
    const std::string prefix = second ? "" : "total_";
    const fs::path statistics = folder / "memory.stat";
    const double files = number_in(statistics, prefix + "active_file", 0) +
                         number_in(statistics, prefix + "inactive_file", 0);
    least = std::min(least, limit - std::max(used - files, 0.0));
    if (folder == root || !folder.has_relative_path()) break;
  }
  return least;
}

}  // namespace

double total_bytes(const MemoryNeed& need) {
  double sum = 0;
  for (const MemoryPart& part : need) sum += part.bytes;
  return sum;
}

double parameter_count(const nn::ModelConfig& config) {
  const CellSizes cell = sizes_of(config.cell);
  const double d = double(config.width), m = double(config.hidden_width());
  const double channels = d / double(config.heads);
  const double mixer = 2 * d * d + double(config.conv_width) * d +
                       cell.learned_inputs * d * (channels + 1) + cell.params * d + d + d * d;
  const double block = mixer + 3 * d * m + 4 * d;  // the MLP; two norms and two residual scales
  const double matrices = config.tie_embedding ? 1 : 2;
  return matrices * double(config.vocabulary) * d + double(config.layers) * block + d;
}

MemoryNeed model_memory(const nn::ModelConfig& config, const std::string& mend) {
  return {{"weights", bytes_for_parameters(config, kSingle), mend}};
}

MemoryNeed training_memory(const nn::ModelConfig& config, const TrainConfig& options,
                           torch::DeviceType device) {
  const torch::ScalarType precision = precision_dtype(options.precision);
  const double bytes = bytes_of(precision);
  const double tokens = double(options.batch) * double(options.length);
  const double weights = bytes_for_weights(config, bytes);
  const double single = bytes_for_parameters(config, kSingle);
  const double masters =  // of the weights that are rounded
      precision == torch::kFloat32
          ? 0
          : kSingle * (parameter_count(config) - small_parameter_count(config));
  const double d = double(config.width);
  const double activations =  // the last hidden states, and their gradient
      tokens * (double(config.layers) * kept_by_block(config, bytes) + 3 * bytes * d);
  const double logits = logits_held(config, tokens, precision, device);
  // The gradient of the matrix that makes the logits comes with the loss. The others come as the
  // backward pass gives the activations back, but for those of batches before.
  const double first = kSingle * double(config.vocabulary) * d;
  const double gradients =
      options.accumulate > 1 ? weights + first : std::max(weights - activations - logits, first);
  return {{"weights", weights, kModelMend},
          {"weights in float32", masters, kModelMend},
          {"gradients", gradients, kModelMend},
          {"optimizer states", 2 * single, kModelMend},
          {"activations", activations, kBatchMend},
          {"logits", logits, kBatchMend},
          {"data", double(options.accumulate) * tokens * 2 * kToken, kBatchMend}};
}

MemoryNeed evaluation_memory(const nn::ModelConfig& config, const EvaluationOptions& options,
                             torch::ScalarType precision, int64_t text_tokens,
                             torch::DeviceType device) {
  const double predictions = std::max(double(text_tokens) - 1, 1.0);
  const double context = double(options.context > 0 ? options.context : options.length);
  const double rows = std::clamp(std::floor(predictions / context), 1.0, double(options.batch));
  const double tokens = rows * std::min({double(options.length), context, predictions});
  const double bytes = bytes_of(precision);
  // One after the other.
  const double logits =
      tokens * bytes * double(config.width) + logits_held(config, tokens, precision, device);
  const double activations = tokens * held_by_block(config, bytes);
  return {logits > activations ? MemoryPart{"logits", logits, kBatchMend}
                               : MemoryPart{"activations", activations, kBatchMend},
          {"data", tokens * kToken, kBatchMend}};
}

MemoryNeed generation_memory(const nn::ModelConfig& config, torch::ScalarType precision,
                             int64_t prompt_tokens, int64_t rows) {
  const double tokens = double(prompt_tokens);
  const double bytes = bytes_of(precision);
  const double logits = bytes * double(config.vocabulary);
  const double activations = held_by_block(config, bytes);
  // Those of the prompts, and those that decoding goes on with.
  const double states =
      2 * double(config.layers) * double(config.width) *
      (kSingle * sizes_of(config.cell).state + bytes * double(config.conv_width - 1));
  return {{logits > activations ? "logits" : "activations", tokens * std::max(logits, activations),
           "--prompt"},
          {"rows", double(rows - 1) * (2 * logits + states), "--batch"}};
}

MemoryNeed scan_memory(const std::string& cell, int64_t batch, int64_t steps, int64_t channels,
                       double bytes) {
  const CellSizes sizes = sizes_of(cell);
  const double rows = double(batch) * double(channels), numbers = rows * double(steps);
  return {{"sequences and gradients", 2 * bytes * numbers * (sizes.inputs + 1),
           "batch, number of steps or number of channels"},
          {"states", bytes * rows * sizes.state, "batch or number of channels"}};
}

double available_host_memory(const fs::path& proc, const fs::path& control_groups) {
  constexpr double kKibibyte = 1024;
  const fs::path memory = proc / "meminfo";
  double available = number_in(memory, "MemAvailable:", kUnlimited) * kKibibyte;
  std::ifstream groups(proc / "self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // "4:memory:/group", or "0::/group"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {
      available = std::min(available, left_by_groups(control_groups, group, true));
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      available = std::min(available, left_by_groups(control_groups / "memory", group, false));
    }
  }
  return available + number_in(memory, "SwapFree:", 0) * kKibibyte;
}

double available_memory(const torch::Device& device) {
  if (!device.is_cuda()) return available_host_memory("/proc", "/sys/fs/cgroup");
  const c10::cuda::CUDAGuard guard(device);
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return kUnlimited;
  // What LibTorch keeps for tensors to come is free too.
  double kept = 0;
  if (c10::cuda::CUDACachingAllocator::get()->initialized()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
    kept = double(stats.reserved_bytes[kAll].current) - double(stats.allocated_bytes[kAll].current);
  }
  return double(free) + kept;
}

double peak_memory(const torch::Device& device) {
  if (!device.is_cuda()) return 0;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return double(stats.allocated_bytes[kAll].peak);
}

void reset_peak_memory(const torch::Device& device) {
  if (!device.is_cuda() || !c10::cuda::CUDACachingAllocator::get()->initialized()) return;
  c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
}

void release_cached_memory(const torch::Device& device) {
  if (!device.is_cuda()) return;
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::CUDACachingAllocator::emptyCache();
}

void require_memory(const MemoryNeed& need, const std::string& device, double available) {
  const double total = total_bytes(need);
  require(total <= available,
          "not enough memory on {}: about {} are needed ({}), and {} are free; give a smaller {}",
          device, format_memory(total), join_parts(need), format_memory(available),
          mend_of(need, available));
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
    throw Error(fmt::format("{}, of which about {} are needed ({}); give a smaller {}",
                            out_of_memory, format_memory(total_bytes(need)), join_parts(need),
                            mend_of(need, kUnlimited)));
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
