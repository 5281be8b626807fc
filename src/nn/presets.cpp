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
  double mixers = 0;  // parameters of all layers'
  for (const MixerLayers& mixer : sizes_of_mixers(config)) {
    const Numbers& of_layer = mixer.sizes.parameters;
    mixers += mixer.layers * (of_layer.in_precision + of_layer.in_float32);
  }
  const double of_mixer = mixers / double(std::max<int64_t>(config.layers, 1));
  const double left = of_mixer > 5 * d * d ? (12 * d * d - of_mixer) / (3 * d) : 8 * d / 3;
  return int64_t(kMultiple * std::max(1.0, std::ceil(left / kMultiple)));
}

}  // namespace pararnn::nn
