#include "nn/mixers/rnn_decoder.hpp"

#include "cells/cell_registry.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

class RnnDecoder : public MixerDecoder {
 public:
  RnnDecoder(const RnnOptions& options, double epsilon, const DecoderParameters& parameters,
             const MixerState& state)
      : cell_(find_cell(options.cell)),
        epsilon_(epsilon),
        input_(parameters.matrix("input.weight")),
        taps_(parameters.numbers("convolution.weight")),
        projection_(parameters.matrix("projection.weight")),
        bias_(parameters.numbers("projection.bias")),
        recurrent_(parameters.numbers("recurrent_weight")),
        norm_(parameters.numbers("norm.weight")),
        before_(own_copy(state[0], torch::kBFloat16)),
        state_(own_copy(state[1], torch::kFloat)) {}

  ops::DecodeInput read(const ops::DecodeInput& x) override {
    const auto [convolved, gate] = ops::decode_convolution(x, input_, taps_, before_);
    return ops::decode_cell(convolved, projection_, bias_, recurrent_, state_, cell_, norm_,
                            epsilon_, gate);
  }

 private:
  const CellDefinition& cell_;
  double epsilon_;
  Tensor input_, taps_, projection_, bias_, recurrent_, norm_;
  Tensor before_, state_;
};

}  // namespace

bool has_mixer_decoder(const RnnOptions& options, const ModelConfig& config) {
  return config.width / options.heads % ops::kDecodeMultiple == 0;
}

std::unique_ptr<MixerDecoder> make_mixer_decoder(const RnnOptions& options,
                                                 const ModelConfig& config,
                                                 const DecoderParameters& parameters,
                                                 const MixerState& state) {
  return std::make_unique<RnnDecoder>(options, config.norm_epsilon, parameters, state);
}

}  // namespace pararnn::nn
