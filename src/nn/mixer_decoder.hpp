// A mixer's part of a step of the fused decoder (fused_decoder.hpp): from a block's normalised
// input to the input of the mixer's output projection, by the kernels of ops/decode.
//
// A mixer whose decoder is made of kernels has, in nn/mixers/ beside it, a pair of files with
//
//   has_mixer_decoder(options, config)                       whether the kernels take such a layer
//   make_mixer_decoder(options, config, parameters, state)   a layer's
//
// which fused_decoder.cpp includes.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "nn/language_model.hpp"
#include "ops/decode/decode.hpp"

namespace pararnn::nn {

class MixerDecoder {
 public:
  virtual ~MixerDecoder() = default;
  /// Of one token of each row. Advances the state.
  virtual ops::DecodeInput read(const ops::DecodeInput& x) = 0;
};

/// A model's parameters by their names in its files, or a part's by what follows `part` in them, as
/// the operators of ops/decode take them.
class DecoderParameters {
 public:
  explicit DecoderParameters(const torch::OrderedDict<std::string, torch::Tensor>& parameters,
                             std::string part = "")
      : parameters_(parameters), part_(std::move(part)) {}

  /// In bfloat16 and float32; the model's own where it has them so.
  torch::Tensor matrix(const std::string& name) const { return find(name, torch::kBFloat16); }
  torch::Tensor numbers(const std::string& name) const { return find(name, torch::kFloat); }

 private:
  torch::Tensor find(const std::string& name, torch::ScalarType dtype) const {
    return parameters_[part_ + name].detach().to(dtype).contiguous();
  }
  const torch::OrderedDict<std::string, torch::Tensor>& parameters_;
  std::string part_;
};

/// A tensor of a state, as memory of the decoder's own.
inline torch::Tensor own_copy(const torch::Tensor& t, torch::ScalarType dtype) {
  return t.to(dtype, /*non_blocking=*/false, /*copy=*/true, torch::MemoryFormat::Contiguous);
}

/// Of mixers that have no decoder of kernels.
template <class Options>
bool has_mixer_decoder(const Options&, const ModelConfig&) {
  return false;
}
template <class Options>
std::unique_ptr<MixerDecoder> make_mixer_decoder(const Options&, const ModelConfig&,
                                                 const DecoderParameters&, const MixerState&) {
  return nullptr;
}

}  // namespace pararnn::nn
