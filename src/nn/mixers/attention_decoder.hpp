// A step of the attention mixer as two kernels: its input projection, which rotates queries and
// keys and writes the cache, and attention over the cache.
//
// It goes on from a state with room (Mixer::reserve), whose keys and values in bfloat16 are the
// decoder's from then on: they may be most of a GPU's memory.
#pragma once

#include "nn/mixer_decoder.hpp"
#include "nn/mixers/attention_mixer.hpp"

namespace pararnn::nn {

bool has_mixer_decoder(const AttentionOptions& options, const ModelConfig& config);
std::unique_ptr<MixerDecoder> make_mixer_decoder(const AttentionOptions& options,
                                                 const ModelConfig& config,
                                                 const DecoderParameters& parameters,
                                                 const MixerState& state);

}  // namespace pararnn::nn
