// The learning rate over a run: a linear warm-up, then half a cosine down to a floor. It is a
// function of progress, the share of the run that is done, so that a run bounded by steps and one
// bounded by minutes follow the same curve.
#pragma once

namespace pararnn::train {

/// The curve: `warmup` is a share of the run in [0,1), `floor` a share of the peak in [0,1].
struct Schedule {
  double peak = 1e-3;
  double floor = 0.1;
  double warmup = 0.02;
};

/// The learning rate at `progress` in [0,1]:
///   peak · progress/warmup                                        while progress < warmup,
///   peak · (floor + (1−floor)·(1+cos(π·(progress−warmup)/(1−warmup)))/2)       afterwards.
double learning_rate(const Schedule& schedule, double progress);

}  // namespace pararnn::train
