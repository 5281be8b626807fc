// What a run needs of memory, reckoned from its sizes alone, before a tensor is made; and whether a
// device has it. Linux promises memory that is not there and ends the process that touches it, so
// asking for it and seeing what happens is no way to find out.
//
// The estimates are of the peak, and count what is known to be there at that moment: they come out
// a little below what is used, so that nothing is refused that could fit.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "nn/config.hpp"
#include "nn/recompute.hpp"
#include "train/config.hpp"
#include "train/evaluate.hpp"

namespace pararnn::train {

/// A part of what is needed, and what makes it smaller, as "--batch or --length". Bytes are a
/// double: products of sizes may be beyond 64 bits.
struct MemoryPart {
  std::string name;
  double bytes;
  std::string mend;
};
using MemoryNeed = std::vector<MemoryPart>;

double total_bytes(const MemoryNeed& need);

/// A step of training, on the device that it runs on: weights and their masters, gradients,
/// optimizer, activations, logits, data, as they are where memory is highest. `config` must be
/// valid; cells are looked up. What is computed again is as `plan` says; --recompute is not
/// asked.
MemoryNeed training_memory(const nn::ModelConfig& config, const TrainConfig& options,
                           torch::DeviceType device = torch::kCPU,
                           const nn::RecomputePlan& plan = {});

/// The share of a device's free memory that training may take by this reckoning, which came within
/// 3 % of the peaks measured on GPUs. The rest is for what it does not see: gaps between tensors,
/// and the workspaces of products and scans.
inline constexpr double kShareToFill = 0.95;

/// What a step of training computes again, as --recompute says; auto: what fits into so many bytes
/// and takes the least time.
nn::RecomputePlan choose_recompute(const nn::ModelConfig& config, const TrainConfig& options,
                                   torch::DeviceType device, double available);

/// The largest --batch of which a step fits into so many bytes, computing again what
/// choose_recompute says; 0 where none does.
int64_t largest_batch(const nn::ModelConfig& config, TrainConfig options, torch::DeviceType device,
                      double available);

/// "none", "the mixers of 5 of 12 blocks", "3 of 12 blocks, the mixers of 9 more".
std::string describe(const nn::RecomputePlan& plan, int64_t layers);

/// The weights of a model.
MemoryNeed model_memory(const nn::ModelConfig& config,
                        const std::string& mend = "--width, --layers or --mlp-width");

/// evaluate() on a text of so many tokens, beside the model.
MemoryNeed evaluation_memory(const nn::ModelConfig& config, const EvaluationOptions& options,
                             torch::ScalarType precision, int64_t text_tokens,
                             torch::DeviceType device = torch::kCPU);

/// nn::generate of so many rows after prompts of at most so many tokens, beside the model.
MemoryNeed generation_memory(const nn::ModelConfig& config, torch::ScalarType precision,
                             int64_t prompt_tokens, int64_t rows, int64_t tokens_to_come,
                             torch::DeviceType device = torch::kCPU);

/// A scan's problem and result, forward and backward: u, y and their gradients, `bytes` for each of
/// their numbers.
MemoryNeed scan_memory(const std::string& cell, int64_t batch, int64_t steps, int64_t channels,
                       double bytes);

/// That memory is, or has been, too little.
struct NotEnoughMemory : Error {
  using Error::Error;
};

/// Throws NotEnoughMemory, one sentence that names the parts, if they are more than the device has.
void require_memory(const MemoryNeed& need, const torch::Device& device);
void require_memory(const MemoryNeed& need, const std::string& device, double available);

/// Runs `action` where the need can be met, as require_memory says; what then runs out of memory
/// all the same is NotEnoughMemory with a sentence as well.
void run_within_memory(const MemoryNeed& need, const torch::Device& device,
                       const std::function<void()>& action);

/// The same for a run of training, with what choose_recompute chooses for the memory at hand.
void run_within_memory(const nn::ModelConfig& config, const TrainConfig& options,
                       const torch::Device& device,
                       const std::function<void(const nn::RecomputePlan&)>& action);

/// The sentence for an exception that says that memory ran out; empty for any other.
std::string describe_out_of_memory(const std::exception& error);

}  // namespace pararnn::train
