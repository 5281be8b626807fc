#include "train/presets.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

struct LearningRate {
  const char* preset;
  double value;
};
constexpr std::array kLearningRates{LearningRate{"134m", 3e-3}, LearningRate{"400m", 1.5e-3},
                                    LearningRate{"1b", 1e-3}, LearningRate{"3b", 8e-4},
                                    LearningRate{"7b", 6e-4}};

}  // namespace

TrainConfig with_preset(TrainConfig config, const std::string& preset) {
  const auto found = std::ranges::find(kLearningRates, preset, &LearningRate::preset);
  require(found != kLearningRates.end(), "there is no preset '{}'", preset);
  config.learning_rate = found->value;
  config.z_loss = 1e-4;
  return config;
}

}  // namespace pararnn::train
