// A step of the mamba2 mixer as two kernels: its input projection with the convolution, and the
// recurrence with the gate and the norm.
//
// Parameters: input.weight (2E+2GN+H, d), rows of z, x, b, c, dt; convolution.weight (K,E+2GN) and
// .bias; decay_log, step_bias, skip (H); norm.weight (E). State: the last K - 1 inputs of the
// convolution, (B,K-1,E+2GN), and h (B,H,E/H,N).
#pragma once

#include "nn/mixer_decoder.hpp"

namespace pararnn::nn {

/// Whether the kernels take E channels with N components of state.
bool has_mamba2_decoder(int64_t channels, int64_t components);
std::unique_ptr<MixerDecoder> make_mamba2_decoder(double epsilon,
                                                  const DecoderParameters& parameters,
                                                  const MixerState& state);

}  // namespace pararnn::nn
