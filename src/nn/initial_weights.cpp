#include "nn/initial_weights.hpp"

namespace pararnn::nn {
namespace {

torch::Device& device_of_weights() {
  thread_local torch::Device device(torch::kCPU);
  return device;
}

}  // namespace

WeightsOn::WeightsOn(const torch::Device& device) : before_(device_of_weights()) {
  device_of_weights() = device;
}

WeightsOn::~WeightsOn() { device_of_weights() = before_; }

torch::TensorOptions weight_options() {
  return torch::dtype(torch::kFloat32).device(device_of_weights());
}

}  // namespace pararnn::nn
