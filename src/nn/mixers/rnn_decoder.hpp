// Decoding by the kernels of ops/decode: five a block, for models whose mixers are all RNNs.
#pragma once

#include "nn/decoder.hpp"

namespace pararnn::nn {

/// Whether the kernels are made for such a model: every mixer an rnn, and the width, the channels
/// of a head and the hidden channels of the MLP multiples of 32.
bool has_rnn_decoder(const ModelConfig& config);

/// A Decoder with weights in bfloat16 (copies, where the model's are not) and all else in float32.
/// On a CPU, where it is made for tests, it runs the operators' definitions.
std::unique_ptr<Decoder> make_rnn_decoder(LanguageModel& model, const LanguageModelState& state,
                                          const torch::Tensor& logits);

}  // namespace pararnn::nn
