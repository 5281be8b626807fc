// A step of the attention mixer as two kernels: its input projection, which rotates queries and
// keys and writes the cache, and attention over the cache.
//
// Parameters: input.weight ((H+2H')·n, d), rows of queries, keys and values. State, reserved: keys
// (B,C,H',n), rotated, and values alike; begin (B) and read (B), int64: a row's first token and
// its next one. The keys and values of a state in bfloat16 are the decoder's from then on, as they
// may be most of a GPU's memory.
#pragma once

#include "nn/mixer_decoder.hpp"

namespace pararnn::nn {

/// Whether the kernels take heads of so many channels.
bool has_attention_decoder(int64_t channels);
std::unique_ptr<MixerDecoder> make_attention_decoder(double rotary_base,
                                                     const DecoderParameters& parameters,
                                                     const MixerState& state);

}  // namespace pararnn::nn
