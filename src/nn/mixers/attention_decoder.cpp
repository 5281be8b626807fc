#include "nn/mixers/attention_decoder.hpp"

#include "base/error.hpp"
#include "ops/decode/decode_attention.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;

class AttentionDecoder : public MixerDecoder {
 public:
  AttentionDecoder(double rotary_base, const DecoderParameters& parameters, const MixerState& state)
      : rotary_base_(rotary_base),
        input_(parameters.matrix("input.weight")),
        cache_{.keys = state[0].to(torch::kBFloat16).contiguous(),
               .values = state[1].to(torch::kBFloat16).contiguous(),
               .begin = own_copy(state[2], torch::kLong),
               .read = own_copy(state[3], torch::kLong),
               .arrived = {}} {
    const int64_t heads = input_.size(0) / cache_.keys.size(3);
    cache_.make_counters(heads - 2 * cache_.keys.size(2));
  }

  ops::DecodeInput read(const ops::DecodeInput& x) override {
    const Tensor queries = ops::decode_attention_input(x, input_, cache_, rotary_base_);
    return {ops::decode_attention(queries, cache_)};
  }

 private:
  double rotary_base_;
  Tensor input_;
  ops::DecodeCache cache_;
};

}  // namespace

bool has_mixer_decoder(const AttentionOptions& options, const ModelConfig& config) {
  const int64_t channels = attention_heads(options, config).channels;
  return channels % 8 == 0 && channels <= ops::kMostDecodedChannels;
}

std::unique_ptr<MixerDecoder> make_mixer_decoder(const AttentionOptions& options,
                                                 const ModelConfig&,
                                                 const DecoderParameters& parameters,
                                                 const MixerState& state) {
  require(state.size() == 4, "attention decodes from a state with room for tokens: reserve it");
  return std::make_unique<AttentionDecoder>(options.rotary_base, parameters, state);
}

}  // namespace pararnn::nn
