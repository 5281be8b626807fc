#include "nn/presets.hpp"

#include <fmt/ranges.h>

#include <array>

#include "base/error.hpp"

namespace pararnn::nn {
namespace {

struct Preset {
  const char* name;
  int64_t width, layers, heads;
};

constexpr std::array kPresets{Preset{"134m", 768, 12, 4}, Preset{"400m", 1024, 24, 4},
                              Preset{"1b", 2048, 24, 4}, Preset{"3b", 2560, 32, 2},
                              Preset{"7b", 4096, 32, 4}};
constexpr int64_t kMultiple = 256;

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

ModelConfig preset(const std::string& name) {
  for (const Preset& preset : kPresets) {
    if (name != preset.name) continue;
    return {.width = preset.width,
            .layers = preset.layers,
            .mlp_width = (8 * preset.width / 3 + kMultiple - 1) / kMultiple * kMultiple,
            .tie_embedding = false,
            .rnn = {.heads = preset.heads, .weight_bound = 0.5}};
  }
  throw Error(
      fmt::format("there is no preset '{}': there are {}", name, fmt::join(preset_names(), ", ")));
}

}  // namespace pararnn::nn
