// Where the first weights of a module are made: on the device that the model is for, so that one of
// billions of parameters is never on the host, and is drawn as fast as the device writes.
#pragma once

#include <torch/types.h>

namespace pararnn::nn {

/// While it lives, modules that this thread makes have their weights on that device.
class WeightsOn {
 public:
  explicit WeightsOn(const torch::Device& device);
  ~WeightsOn();
  WeightsOn(const WeightsOn&) = delete;
  WeightsOn& operator=(const WeightsOn&) = delete;

 private:
  torch::Device before_;
};

/// What a module makes its weights with, as torch::randn(shape, weight_options()): float32, on the
/// device of the innermost WeightsOn; without one, on the CPU.
torch::TensorOptions weight_options();

}  // namespace pararnn::nn
