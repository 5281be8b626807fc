#include "nn/fused_decoder.hpp"

#include "nn/mixer_decoder.hpp"
#include "nn/mixers/attention_decoder.hpp"
#include "nn/mixers/mamba2_decoder.hpp"
#include "nn/mixers/rnn_decoder.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

/// The weights of a block, and its mixer.
struct DecodedBlock {
  explicit DecodedBlock(const DecoderParameters& parameters)
      : norm(parameters.numbers("mixer_norm.weight")),
        output(parameters.matrix("mixer.output.weight")),
        scale(parameters.numbers("mixer_scale")),
        mlp_norm(parameters.numbers("mlp_norm.weight")),
        mlp_input(parameters.matrix("mlp.input.weight")),
        mlp_output(parameters.matrix("mlp.output.weight")),
        mlp_scale(parameters.numbers("mlp_scale")) {}

  std::unique_ptr<MixerDecoder> mixer;
  Tensor norm, output, scale;
  Tensor mlp_norm, mlp_input, mlp_output, mlp_scale;
};

class FusedDecoder : public Decoder {
 public:
  FusedDecoder(LanguageModel& model, const LanguageModelState& state, const Tensor& logits)
      : epsilon_(model->config().norm_epsilon) {
    const ModelConfig& config = model->config();
    const auto named = model->named_parameters();
    const DecoderParameters parameters(named);
    embedding_ = parameters.matrix("embedding");
    output_ = config.tie_embedding ? embedding_ : parameters.matrix("output");
    norm_ = parameters.numbers("norm.weight");
    for (size_t i = 0; i < state.layers.size(); ++i) {
      const std::string block = "block" + std::to_string(i) + ".";
      blocks_.emplace_back(DecoderParameters(named, block));
      const std::string wanted = mixer_of_layer(config, int64_t(i));
      for_each_mixer(config, [&](std::string_view mixer, const auto& options) {
        if (mixer != wanted) return;
        blocks_.back().mixer = make_mixer_decoder(
            options, config, DecoderParameters(named, block + "mixer."), state.layers[i]);
      });
    }
    stream_ = torch::empty({logits.size(0), config.width}, norm_.options());
    logits_ = torch::empty(logits.sizes(), norm_.options());
  }

  void read(const Tensor& tokens) override {
    torch::NoGradGuard no_grad;
    // The norm before what comes next.
    const auto norm_of = [&](size_t block) {
      return block < blocks_.size() ? blocks_[block].norm : norm_;
    };
    ops::DecodeInput x = ops::decode_embedding(tokens, embedding_, norm_of(0), epsilon_, stream_);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      const DecodedBlock& b = blocks_[i];
      x = b.mixer->read(x);
      x = ops::decode_residual(x, b.output, b.scale, stream_, b.mlp_norm, epsilon_);
      const Tensor hidden = ops::decode_swiglu(x, b.mlp_input);
      x = ops::decode_residual({hidden}, b.mlp_output, b.mlp_scale, stream_, norm_of(i + 1),
                               epsilon_);
    }
    ops::decode_logits(x, output_, logits_);
  }
  const Tensor& logits() const override { return logits_; }

 private:
  double epsilon_;
  Tensor embedding_, output_, norm_;
  std::vector<DecodedBlock> blocks_;
  Tensor stream_, logits_;
};

}  // namespace

bool has_fused_decoder(const ModelConfig& config) {
  bool made =
      config.width % ops::kDecodeMultiple == 0 && config.hidden_width() % ops::kDecodeMultiple == 0;
  for_each_mixer(config, [&](std::string_view mixer, const auto& options) {
    if (has_mixer(config, mixer)) made = made && has_mixer_decoder(options, config);
  });
  return made;
}

std::unique_ptr<Decoder> make_fused_decoder(LanguageModel& model, const LanguageModelState& state,
                                            const Tensor& logits) {
  return std::make_unique<FusedDecoder>(model, state, logits);
}

}  // namespace pararnn::nn
