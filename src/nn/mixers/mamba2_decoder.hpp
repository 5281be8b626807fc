// A step of the mamba2 mixer as two kernels: its input projection with the convolution, and the
// recurrence with the gate and the norm.
#pragma once

#include "nn/mixer_decoder.hpp"
#include "nn/mixers/mamba2_mixer.hpp"

namespace pararnn::nn {

bool has_mixer_decoder(const Mamba2Options& options, const ModelConfig& config);
std::unique_ptr<MixerDecoder> make_mixer_decoder(const Mamba2Options& options,
                                                 const ModelConfig& config,
                                                 const DecoderParameters& parameters,
                                                 const MixerState& state);

}  // namespace pararnn::nn
