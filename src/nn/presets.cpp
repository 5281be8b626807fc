#include "nn/presets.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.hpp"
#include "nn/mixer.hpp"

namespace pararnn::nn {
namespace {

struct Preset {
  const char* name;
  int64_t width, layers, heads;
};

constexpr std::array kPresets{Preset{"134m", 768, 12, 4}, Preset{"400m", 1024, 24, 4},
                              Preset{"1b", 2048, 24, 4}, Preset{"3b", 2560, 32, 2},
                              Preset{"7b", 4096, 32, 4}};

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

ModelConfig preset(const std::string& name, const std::string& mixer) {
  const auto found =
      std::ranges::find_if(kPresets, [&](const Preset& preset) { return name == preset.name; });
  require(found != kPresets.end(), "there is no preset '{}': there are {}", name,
          fmt::join(preset_names(), ", "));
  ModelConfig config{.width = found->width,
                     .layers = found->layers,
                     .mixer = mixer,
                     .tie_embedding = false,
                     .rnn = {.heads = found->heads, .weight_bound = 0.5}};
  config.mlp_width = preset_mlp_width(config);
  return config;
}

int64_t preset_mlp_width(const ModelConfig& config) {
  constexpr double kMultiple = 256;
  const double d = double(config.width);
  double excess = 0;  // parameters of large mixers, in all layers, above those of attention
  for (const MixerLayers& mixer : sizes_of_mixers(config)) {
    const double of_layer = mixer.sizes.parameters.in_precision + mixer.sizes.parameters.in_float32;
    if (of_layer > 5 * d * d) excess += mixer.layers * (of_layer - 4 * d * d);
  }
  const double of_block = excess / double(std::max<int64_t>(config.layers, 1));
  const double channels = (8 * d * d - of_block) / (3 * d);
  return int64_t(kMultiple * std::max(1.0, std::ceil(channels / kMultiple)));
}

}  // namespace pararnn::nn
