// Causal softmax attention with rotary positions, as Llama has it (Touvron et al.,
// arXiv:2302.13971):
//
//   x ─ input projection d→(H + 2H')·n ─┬─ queries ─ rotary ─┐
//                                       ├─ keys ──── rotary ─┼─ attention ─ output projection
//                                       └─ values ───────────┘
//
// with H heads of n = d/H channels, and H' heads of keys and values, which H/H' heads of queries
// share. A document's first step has position 0.
//
// State: the keys, rotated, and the values of the steps so far, (B,C,H',n) both, and `begin` (B),
// int64, the first step that may still be looked at. A state with room (Mixer::reserve) has one
// tensor more, `read` (B), int64: how many of the C steps are there. A step without a gradient
// writes its own at `read`, in place.
#pragma once

#include <limits>

#include "nn/linear.hpp"
#include "nn/mixer.hpp"
#include "nn/option.hpp"

namespace pararnn::nn {

struct AttentionOptions {
  int64_t heads = 0;            // of queries; 0: width/64, at least 1
  int64_t key_value_heads = 0;  // 0: as heads
  double rotary_base = 10000;   // pair i of n/2 turns by rotary_base^(-2i/n) a step

  bool operator==(const AttentionOptions&) const = default;
};

template <MaybeConst<AttentionOptions> Options, class Visit>
void for_each_option(Options& options, Visit&& visit) {
  visit("heads", options.heads,
        Option{"--attention-heads", "heads of attention; 0: one for each 64 of --width"});
  visit("key_value_heads", options.key_value_heads,
        Option{"--key-value-heads",
               "heads of its keys and values, which heads of queries share; 0: as many as those"});
  visit("rotary_base", options.rotary_base,
        Option{.flag = "--rotary-base",
               .meaning = "the base of its rotary positions: larger for longer texts",
               .least = std::numeric_limits<double>::denorm_min()});
}

/// The options for a model, with the defaults worked out: H, H' and n.
struct AttentionHeads {
  int64_t heads, key_value_heads, channels;
};
AttentionHeads attention_heads(const AttentionOptions& options, const ModelConfig& config);

void validate(const AttentionOptions& options, const ModelConfig& config, const OptionNames& name);
std::string describe(const AttentionOptions& options, const ModelConfig& config);
MixerSizes sizes_of(const AttentionOptions& options, const ModelConfig& config, const Pass& pass);
std::shared_ptr<Mixer> make_mixer(const AttentionOptions& options, const ModelConfig& config);

struct AttentionMixer : Mixer {
  AttentionMixer(const AttentionOptions& options, const ModelConfig& config);
  std::pair<torch::Tensor, MixerState> forward(const torch::Tensor& x, const MixerState& state,
                                               const Documents& documents) override;
  void prepare(Documents& documents, const MixerState& state, int64_t batch,
               int64_t steps) const override;
  MixerState reserve(const MixerState& state, int64_t steps) const override;

 private:
  AttentionHeads sizes_;
  double rotary_base_;
  std::shared_ptr<Linear> input_, output_;
};

}  // namespace pararnn::nn
