#include "nn/mixers/attention_mixer.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "nn/config.hpp"
#include "ops/attention/attention.hpp"
#include "ops/rotary/rotary.hpp"

namespace pararnn::nn {

using torch::Tensor;

namespace {

constexpr int64_t kUsualChannels = 64;

/// What is in a state.
enum { kKeys, kValues, kBegin, kRead, kReserved };

bool has_room(const MixerState& state) { return state.size() == kReserved; }

/// What attention takes of each token where documents are apart under a mask in parts
/// (ops::mask_in_parts), beside what it takes where they are not.
struct DocumentsInParts {
  double mask = 0;      // of blocks
  double results = 0;   // of attention in blocks and in sequences, of which one is taken
  double copies = 0;    // of queries, keys and values, in whole blocks
  double backward = 0;  // their gradient by way of the blocks, in place of the result in these
};
DocumentsInParts documents_in_parts(int64_t steps, double width, double cache) {
  const auto block = double(std::min(steps, ops::kAttentionBlock));
  const double blocks = std::ceil(double(steps) / block);
  const double padded = blocks * block / double(steps);
  if (blocks == 1) return {.mask = block};
  return {.mask = padded * block,
          .results = 1 + padded,
          .copies = padded > 1 ? padded * (width + cache) : 0,
          .backward = cache};
}

}  // namespace

AttentionHeads attention_heads(const AttentionOptions& options, const ModelConfig& config) {
  const int64_t heads =
      options.heads > 0 ? options.heads : std::max<int64_t>(config.width / kUsualChannels, 1);
  return {heads, options.key_value_heads > 0 ? options.key_value_heads : heads,
          config.width / heads};
}

AttentionMixer::AttentionMixer(const AttentionOptions& options, const ModelConfig& config)
    : sizes_(attention_heads(options, config)), rotary_base_(options.rotary_base) {
  const int64_t width = config.width;
  const int64_t parts = (sizes_.heads + 2 * sizes_.key_value_heads) * sizes_.channels;
  input_ = register_module("input", std::make_shared<Linear>(width, parts));
  output_ = register_module(
      "output", std::make_shared<Linear>(width, width,
                                         1 / std::sqrt(2.0 * std::max<int64_t>(config.layers, 1))));
}

void AttentionMixer::prepare(Documents& documents, const MixerState& state, int64_t batch,
                             int64_t steps) const {
  if (documents.positions.defined()) return;
  const Tensor &weight = input_->weight(), &reset = documents.reset;
  const int64_t earlier = state.empty() ? 0 : state[kKeys].size(1);
  Tensor start;  // the position of the first step
  if (!state.empty()) {
    start =
        (has_room(state) ? state[kRead] : torch::full_like(state[kBegin], earlier)) - state[kBegin];
  }
  documents.positions = ops::positions_of(steps, weight.device(), start, reset);
  if (has_room(state)) return;
  documents.begin =
      (earlier + steps - 1 - documents.positions.select(1, steps - 1)).expand(batch).contiguous();
  if (state.empty() && !reset.defined()) return;  // all steps are looked at
  documents.mask = ops::attention_mask(documents.positions, batch, earlier + steps, reset.defined(),
                                       weight.options(), sizes_.channels);
}

std::pair<Tensor, MixerState> AttentionMixer::forward(const Tensor& x, const MixerState& state,
                                                      const Documents& given) {
  const bool room = has_room(state);
  require(!room || (x.size(1) == 1 && !given.reset.defined() && !torch::GradMode::is_enabled()),
          "a state of attention with room for more is for one step at a time without a gradient");
  Documents documents = given;
  prepare(documents, state, x.size(0), x.size(1));
  auto [queries, keys, values] = ops::attention_inputs(
      x, input_->weight(), sizes_.heads, sizes_.key_value_heads, documents.positions, rotary_base_);
  const auto output = [&](const Tensor& mixed) { return output_->forward(mixed.flatten(2)); };
  if (room) {
    const Tensor at = state[kRead].view({-1, 1, 1, 1}).expand_as(keys);
    state[kKeys].scatter_(1, at, keys);
    state[kValues].scatter_(1, at, values);
    const Tensor mixed =
        ops::attention_step(queries, state[kKeys], state[kValues], state[kBegin], state[kRead]);
    return {output(mixed), {state[kKeys], state[kValues], state[kBegin], state[kRead] + 1}};
  }
  if (!state.empty()) {
    keys = torch::cat({state[kKeys], keys}, 1);
    values = torch::cat({state[kValues], values}, 1);
  }
  const Tensor mixed = ops::causal_attention(queries, keys, values, documents.mask);
  return {output(mixed), {keys, values, documents.begin}};
}

MixerState AttentionMixer::reserve(const MixerState& state, int64_t steps) const {
  if (state.empty() || steps == 0) return state;
  const auto wider = [&](const Tensor& of_steps) {
    auto sizes = of_steps.sizes().vec();
    sizes[1] += steps;
    Tensor result = torch::zeros(sizes, of_steps.options());
    result.narrow(1, 0, of_steps.size(1)).copy_(of_steps);
    return result;
  };
  const Tensor read = has_room(state) ? state[kRead].clone()
                                      : torch::full_like(state[kBegin], state[kKeys].size(1));
  return {wider(state[kKeys]), wider(state[kValues]), state[kBegin], read};
}

void validate(const AttentionOptions& options, const ModelConfig& config, const OptionNames& name) {
  const auto [heads, key_value_heads, channels] = attention_heads(options, config);
  require(config.width % heads == 0,
          "the heads of attention must divide {}: {} does not divide {}: give other {}",
          name(config.width), heads, config.width, name(options.heads));
  require(heads % key_value_heads == 0,
          "{} must divide the heads of attention: {} does not divide {}",
          name(options.key_value_heads), key_value_heads, heads);
  require(channels % 2 == 0 && channels <= ops::kMostRotaryChannels,
          "a head of attention must have an even number of channels, at most {}, not width / heads "
          "= {} / {} = {}: give another {} or {}",
          ops::kMostRotaryChannels, config.width, heads, channels, name(config.width),
          name(options.heads));
}

std::string describe(const AttentionOptions& options, const ModelConfig& config) {
  const auto [heads, key_value_heads, channels] = attention_heads(options, config);
  if (heads == key_value_heads) return fmt::format("attention ({} heads)", heads);
  return fmt::format("attention ({} heads, {} of keys and values)", heads, key_value_heads);
}

MixerSizes sizes_of(const AttentionOptions& options, const ModelConfig& config, const Pass& pass) {
  const auto [heads, key_value_heads, channels] = attention_heads(options, config);
  const double d = double(config.width), cache = 2 * double(key_value_heads * channels);
  const torch::Device device = pass.activations.device();
  // On a CPU, keys and values as often as there are heads.
  const bool repeats = device.is_cpu() && heads != key_value_heads;
  const double repeated = repeats ? 2 * d : 0;
  // The softmax's denominators; on a GPU the queries' gradient is summed in float32.
  const double sums = double(heads), accumulated = device.is_cuda() ? d + sums : 0;
  const bool in_parts = ops::has_mask_in_parts(pass.activations, channels);
  const DocumentsInParts documents =
      in_parts && pass.documents ? documents_in_parts(pass.steps, d, cache) : DocumentsInParts{};
  // The norm, its product, and what attention gives.
  const Numbers held{.in_precision = (3 + documents.results) * d + cache + repeated,
                     .in_float32 = std::max(documents.results, 1.0) * sums};
  return {
      .tensors = 2,
      .parameters = {.in_precision = d * (2 * d + cache), .in_float32 = 0},
      .kept = {.in_precision = held.in_precision + documents.copies, .in_float32 = held.in_float32},
      // The gradients of the product and of what attention gives.
      .backward = {.in_precision = 2 * d + cache + repeated + documents.backward,
                   .in_float32 = accumulated},
      .held = held,
      .held_of_earlier = {.in_precision = repeated, .in_float32 = 0},
      .state_of_token = {.in_precision = cache, .in_float32 = 0},
      .mask_of_pair = in_parts ? 0.0 : 1.0,
      .mask_of_token = documents.mask,
      .operations_of_pair = 4 * d};
}

std::shared_ptr<Mixer> make_mixer(const AttentionOptions& options, const ModelConfig& config) {
  return std::make_shared<AttentionMixer>(options, config);
}

}  // namespace pararnn::nn
