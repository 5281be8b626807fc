#include "nn/mixers/mamba2_decoder.hpp"

#include "ops/decode/decode_mamba2.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

class Mamba2Decoder : public MixerDecoder {
 public:
  Mamba2Decoder(double epsilon, const DecoderParameters& parameters, const MixerState& state)
      : epsilon_(epsilon),
        input_(parameters.matrix("input.weight")),
        taps_(parameters.numbers("convolution.weight")),
        bias_(parameters.numbers("convolution.bias")),
        decay_log_(parameters.numbers("decay_log")),
        step_bias_(parameters.numbers("step_bias")),
        skip_(parameters.numbers("skip")),
        norm_(parameters.numbers("norm.weight")),
        before_(own_copy(state[0], torch::kBFloat16)),
        state_(own_copy(state[1], torch::kFloat)) {}

  ops::DecodeInput read(const ops::DecodeInput& x) override {
    const ops::Mamba2Inputs inputs =
        ops::decode_mamba2_input(x, input_, taps_, bias_, step_bias_, before_);
    return ops::decode_mamba2_state(inputs, decay_log_, skip_, state_, norm_, epsilon_);
  }

 private:
  double epsilon_;
  Tensor input_, taps_, bias_, decay_log_, step_bias_, skip_, norm_;
  Tensor before_, state_;
};

}  // namespace

bool has_mixer_decoder(const Mamba2Options& options, const ModelConfig& config) {
  return options.expand * config.width % ops::kDecodeMultiple == 0 && options.state % 4 == 0 &&
         options.state <= ops::kMostDecodedComponents;
}

std::unique_ptr<MixerDecoder> make_mixer_decoder(const Mamba2Options&, const ModelConfig& config,
                                                 const DecoderParameters& parameters,
                                                 const MixerState& state) {
  return std::make_unique<Mamba2Decoder>(config.norm_epsilon, parameters, state);
}

}  // namespace pararnn::nn
