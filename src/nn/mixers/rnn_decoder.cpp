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

/// The weights of a block, and its state.
struct DecodedBlock {
  DecodedBlock(const Parameters& parameters, const std::string& name, const MixerState& mixer)
      : norm(parameters.numbers(name + "mixer_norm.weight")),
        input(parameters.matrix(name + "mixer.input.weight")),
        taps(parameters.numbers(name + "mixer.convolution.weight")),
        projection(parameters.matrix(name + "mixer.projection.weight")),
        bias(parameters.numbers(name + "mixer.projection.bias")),
        recurrent(parameters.numbers(name + "mixer.recurrent_weight")),
        cell_norm(parameters.numbers(name + "mixer.norm.weight")),
        output(parameters.matrix(name + "mixer.output.weight")),
        scale(parameters.numbers(name + "mixer_scale")),
        mlp_norm(parameters.numbers(name + "mlp_norm.weight")),
        mlp_input(parameters.matrix(name + "mlp.input.weight")),
        mlp_output(parameters.matrix(name + "mlp.output.weight")),
        mlp_scale(parameters.numbers(name + "mlp_scale")),
        before(own_copy(mixer[0], torch::kBFloat16)),
        state(own_copy(mixer[1], torch::kFloat)) {}

  Tensor norm, input, taps, projection, bias, recurrent, cell_norm, output, scale;
  Tensor mlp_norm, mlp_input, mlp_output, mlp_scale;
  Tensor before, state;

 private:
  static Tensor own_copy(const Tensor& t, torch::ScalarType dtype) {
    return t.to(dtype).clone(torch::MemoryFormat::Contiguous);
  }
};

class RnnDecoder : public Decoder {
 public:
  RnnDecoder(LanguageModel& model, const LanguageModelState& state, const Tensor& logits)
      : cell_(find_cell(model->config().rnn.cell)), epsilon_(model->config().norm_epsilon) {
    const Parameters parameters(model);
    embedding_ = parameters.matrix("embedding");
    output_ = model->config().tie_embedding ? embedding_ : parameters.matrix("output");
    norm_ = parameters.numbers("norm.weight");
    for (size_t i = 0; i < state.layers.size(); ++i) {
      blocks_.emplace_back(parameters, "block" + std::to_string(i) + ".", state.layers[i]);
    }
    stream_ = torch::empty({logits.size(0), model->config().width}, norm_.options());
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
      const auto [convolved, gate] = ops::decode_convolution(x, b.input, b.taps, b.before);
      x = ops::decode_cell(convolved, b.projection, b.bias, b.recurrent, b.state, cell_,
                           b.cell_norm, epsilon_, gate);
      x = ops::decode_residual(x, b.output, b.scale, stream_, b.mlp_norm, epsilon_);
      const Tensor hidden = ops::decode_swiglu(x, b.mlp_input);
      x = ops::decode_residual({hidden}, b.mlp_output, b.mlp_scale, stream_, norm_of(i + 1),
                               epsilon_);
    }
    ops::decode_logits(x, output_, logits_);
  }
  const Tensor& logits() const override { return logits_; }

 private:
  const CellDefinition& cell_;
  double epsilon_;
  Tensor embedding_, output_, norm_;
  std::vector<DecodedBlock> blocks_;
  Tensor stream_, logits_;
};

}  // namespace

bool has_rnn_decoder(const ModelConfig& config) {
  constexpr int64_t kDepth = 32;
  const std::vector<LayerRun> mixers = mixers_of(config);
  return mixers.size() == 1 && mixers[0].mixer == "rnn" &&
         config.width / config.rnn.heads % kDepth == 0 && config.hidden_width() % kDepth == 0;
}

std::unique_ptr<Decoder> make_rnn_decoder(LanguageModel& model, const LanguageModelState& state,
                                          const Tensor& logits) {
  return std::make_unique<RnnDecoder>(model, state, logits);
}

}  // namespace pararnn::nn
