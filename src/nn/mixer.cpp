#include "nn/mixer.hpp"

#include "base/error.hpp"
#include "nn/config.hpp"

namespace pararnn::nn {

std::shared_ptr<Mixer> make_mixer(const ModelConfig& config, int64_t layer) {
  std::shared_ptr<Mixer> made;
  const std::string wanted = mixer_of_layer(config, layer);
  for_each_mixer(config, [&](std::string_view mixer, const auto& options) {
    if (mixer == wanted) made = make_mixer(options, config);
  });
  require(made != nullptr, "unknown mixer '{}'", wanted);
  return made;
}

std::vector<MixerLayers> sizes_of_mixers(const ModelConfig& config, const Pass& pass) {
  std::vector<MixerLayers> sizes;
  for (const LayerRun& run : mixers_of(config)) {
    for_each_mixer(config, [&](std::string_view mixer, const auto& options) {
      if (mixer == run.mixer)
        sizes.push_back({run.mixer, sizes_of(options, config, pass), double(run.layers)});
    });
  }
  return sizes;
}

}  // namespace pararnn::nn
