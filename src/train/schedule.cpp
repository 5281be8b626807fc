#include "train/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>

#include "base/error.hpp"

namespace pararnn::train {

ScheduleShape schedule_shape(std::string_view name) {
  const auto found = std::ranges::find(kScheduleNames, name);
  require(found != std::end(kScheduleNames), "--schedule is \"{}\", but must be cosine or wsd",
          name);
  return static_cast<ScheduleShape>(found - std::begin(kScheduleNames));
}

double learning_rate(const Schedule& schedule, double progress) {
  progress = std::clamp(progress, 0.0, 1.0);
  if (progress < schedule.warmup) return schedule.peak * progress / schedule.warmup;
  const bool cosine = schedule.shape == ScheduleShape::kCosine;
  const double start = cosine ? schedule.warmup : std::max(schedule.warmup, 1 - schedule.decay);
  if (progress <= start) return schedule.peak;
  const double done = (progress - start) / (1 - start);
  const double fall = cosine ? (1 + std::cos(std::numbers::pi * done)) / 2 : 1 - done;
  return schedule.peak * (schedule.floor + (1 - schedule.floor) * fall);
}

}  // namespace pararnn::train
