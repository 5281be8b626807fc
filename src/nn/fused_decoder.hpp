// Decoding by the kernels of ops/decode: three a block beside the mixer's own (mixer_decoder.hpp),
// which may differ from block to block.
#pragma once

#include "nn/decoder.hpp"

namespace pararnn::nn {

/// Whether the kernels are made for such a model: each of its mixers has a decoder, and the width
/// and the hidden channels of the MLP are multiples of 32.
bool has_fused_decoder(const ModelConfig& config);

/// A Decoder with weights in bfloat16 (copies, where the model's are not) and all else in float32.
/// On a CPU, where it is made for tests, it runs the operators' definitions.
std::unique_ptr<Decoder> make_fused_decoder(LanguageModel& model, const LanguageModelState& state,
                                            const torch::Tensor& logits);

}  // namespace pararnn::nn
