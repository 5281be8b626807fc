// A step of the rnn mixer as two kernels: its input projection with the convolution, and the
// projection to the cell with the cell's step and the gated norm.
#pragma once

#include "nn/mixer_decoder.hpp"
#include "nn/mixers/rnn_mixer.hpp"

namespace pararnn::nn {

bool has_mixer_decoder(const RnnOptions& options, const ModelConfig& config);
std::unique_ptr<MixerDecoder> make_mixer_decoder(const RnnOptions& options,
                                                 const ModelConfig& config,
                                                 const DecoderParameters& parameters,
                                                 const MixerState& state);

}  // namespace pararnn::nn
