#include "train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace pararnn::train {

double learning_rate(const Schedule& schedule, double progress) {
  progress = std::clamp(progress, 0.0, 1.0);
  if (progress < schedule.warmup) return schedule.peak * progress / schedule.warmup;
  const double angle = std::numbers::pi * (progress - schedule.warmup) / (1 - schedule.warmup);
  return schedule.peak * (schedule.floor + (1 - schedule.floor) * (1 + std::cos(angle)) / 2);
}

}  // namespace pararnn::train
