// The learning rate over a run: a linear warm-up, then down to a floor, either by half a cosine at
// once, or by a straight line at the end, after a stable stretch (warm-up–stable–decay). It is a
// function of progress, the share of the run that is done, so that a run bounded by steps and one
// bounded by minutes follow the same curve.
#pragma once

#include <string_view>

namespace pararnn::train {

enum class ScheduleShape { kCosine, kWarmupStableDecay };

inline constexpr const char* kScheduleNames[] = {"cosine", "wsd"};

/// The shape that --schedule names. Throws Error on another name.
ScheduleShape schedule_shape(std::string_view name);

/// The curve: `warmup` is a share of the run in [0,1), `floor` a share of the peak in [0,1].
struct Schedule {
  double peak = 1e-3;
  double floor = 0.1;
  double warmup = 0.02;
  ScheduleShape shape = ScheduleShape::kCosine;
  double decay = 0.2;  // share of the run in which a kWarmupStableDecay falls, at most 1−warmup
};

/// The learning rate at `progress` in [0,1]:
///   peak · progress/warmup                       while progress < warmup,
///   peak · (floor + (1−floor)·fall(s))           afterwards, with the share s of the fall done:
/// a cosine falls from warmup to 1, fall(s) = (1+cos(π·s))/2; the other shape from 1−decay to 1,
/// fall(s) = 1−s, and is the peak before.
double learning_rate(const Schedule& schedule, double progress);

}  // namespace pararnn::train
