#include "nn/decoder.hpp"

#include "nn/fused_decoder.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

class ModuleDecoder : public Decoder {
 public:
  ModuleDecoder(LanguageModel& model, const LanguageModelState& state, const Tensor& logits)
      : model_(model), logits_(logits.clone()) {
    for (const MixerState& layer : state.layers) {
      MixerState copy;
      for (const Tensor& t : layer) copy.push_back(t.clone(torch::MemoryFormat::Contiguous));
      state_.layers.push_back(std::move(copy));
    }
  }

  void read(const Tensor& tokens) override {
    torch::NoGradGuard no_grad;
    LanguageModelState next = state_;
    logits_.copy_(model_->step(tokens, next));
    for (size_t i = 0; i < state_.layers.size(); ++i) {
      for (size_t j = 0; j < state_.layers[i].size(); ++j) {
        const Tensor& to = state_.layers[i][j];
        if (!to.is_same(next.layers[i][j])) to.copy_(next.layers[i][j]);
      }
    }
  }
  const Tensor& logits() const override { return logits_; }

 private:
  LanguageModel model_;
  LanguageModelState state_;
  Tensor logits_;
};

}  // namespace

std::unique_ptr<Decoder> make_module_decoder(LanguageModel& model, const LanguageModelState& state,
                                             const Tensor& logits) {
  return std::make_unique<ModuleDecoder>(model, state, logits);
}

std::unique_ptr<Decoder> make_decoder(LanguageModel& model, const LanguageModelState& state,
                                      const Tensor& logits) {
  const bool halves = model->precision() == torch::kBFloat16 && logits.is_cuda();
  return halves && has_fused_decoder(model->config()) ? make_fused_decoder(model, state, logits)
                                                      : make_module_decoder(model, state, logits);
}

}  // namespace pararnn::nn
