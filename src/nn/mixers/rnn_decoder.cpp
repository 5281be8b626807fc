#include "nn/mixers/rnn_decoder.hpp"

#include "cells/cell_registry.hpp"
#include "ops/decode/decode.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

/// A model's parameters by their names in its files.
class Parameters {
 public:
  explicit Parameters(LanguageModel& model) : parameters_(model->named_parameters()) {}

  Tensor matrix(const std::string& name) const { return find(name, torch::kBFloat16); }
  Tensor numbers(const std::string& name) const { return find(name, torch::kFloat); }

 private:
  Tensor find(const std::string& name, torch::ScalarType dtype) const {
    return parameters_[name].detach().to(dtype).contiguous();
  }
  torch::OrderedDict<std::string, Tensor> parameters_;
};

ops::DecodedLayer layer_of(const Parameters& parameters, const std::string& name,
                           const MixerState& state) {
  const auto own_copy = [](const Tensor& t, torch::ScalarType dtype) {
    return t.to(dtype).clone(torch::MemoryFormat::Contiguous);
  };
  return {.norm = parameters.numbers(name + "mixer_norm.weight"),
          .input = parameters.matrix(name + "mixer.input.weight"),
          .taps = parameters.numbers(name + "mixer.convolution.weight"),
          .before = own_copy(state[0], torch::kBFloat16),
          .projection = parameters.matrix(name + "mixer.projection.weight"),
          .bias = parameters.numbers(name + "mixer.projection.bias"),
          .recurrent = parameters.numbers(name + "mixer.recurrent_weight"),
          .state = own_copy(state[1], torch::kFloat),
          .cell_norm = parameters.numbers(name + "mixer.norm.weight"),
          .output = parameters.matrix(name + "mixer.output.weight"),
          .scale = parameters.numbers(name + "mixer_scale"),
          .mlp_norm = parameters.numbers(name + "mlp_norm.weight"),
          .mlp_input = parameters.matrix(name + "mlp.input.weight"),
          .mlp_output = parameters.matrix(name + "mlp.output.weight"),
          .mlp_scale = parameters.numbers(name + "mlp_scale")};
}

class RnnDecoder : public Decoder {
 public:
  RnnDecoder(LanguageModel& model, const LanguageModelState& state, const Tensor& logits)
      : logits_(torch::empty(logits.sizes(), logits.options().dtype(torch::kFloat))) {
    torch::NoGradGuard no_grad;
    const ModelConfig& config = model->config();
    const Parameters parameters(model);
    const Tensor embedding = parameters.matrix("embedding");
    ops::DecodedModel decoded{
        .cell = &find_cell(config.rnn.cell),
        .epsilon = config.norm_epsilon,
        .embedding = embedding,
        .layers = {},
        .norm = parameters.numbers("norm.weight"),
        .output = config.tie_embedding ? embedding : parameters.matrix("output")};
    for (size_t i = 0; i < state.layers.size(); ++i) {
      decoded.layers.push_back(
          layer_of(parameters, "block" + std::to_string(i) + ".", state.layers[i]));
    }
    step_ = ops::make_decode_step(decoded, logits.size(0));
  }

  void read(const Tensor& tokens) override {
    torch::NoGradGuard no_grad;
    step_(tokens, logits_);
  }
  const Tensor& logits() const override { return logits_; }

 private:
  Tensor logits_;
  ops::DecodeStep step_;
};

}  // namespace

bool has_rnn_decoder(const ModelConfig& config) {
  constexpr int64_t kDepth = 32;
  const std::vector<LayerRun> mixers = mixers_of(config);
  return mixers.size() == 1 && config.layers > 0 && mixers[0].mixer == "rnn" &&
         config.width / config.rnn.heads % kDepth == 0 && config.hidden_width() % kDepth == 0;
}

std::unique_ptr<Decoder> make_rnn_decoder(LanguageModel& model, const LanguageModelState& state,
                                          const Tensor& logits) {
  return std::make_unique<RnnDecoder>(model, state, logits);
}

}  // namespace pararnn::nn
