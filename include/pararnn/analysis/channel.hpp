// One channel of a cell at random: its weights, and its inputs step by step. What all analyses
// start from.
//
// Learned inputs are standard normal, as projections of normalised activations are. The input that
// drives the memory gets the gate bias besides, in the direction in which the cell remembers
// longer. Inputs that no projection makes (masks, time gaps) are 1. Weights are uniform. The
// numbers follow from the seed alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "pararnn/analysis.hpp"

namespace pararnn {

/// Which of a cell's inputs are of a special kind.
struct InputRoles {
  int memory_input = 0;      // gets the gate bias
  int memory_direction = 1;  // +1: a larger input remembers longer; -1: a smaller one
  std::vector<int> side_inputs = {};
};

/// How large a channel's weights are, and how far its memory's gate is open.
struct Regime {
  double weight_scale = 1;  // weights are uniform in ±weight_scale
  double gate_bias = 0;     // positive: remembers longer
  double input_scale = 1;   // standard deviation of the inputs
};

class RandomChannel {
 public:
  RandomChannel(const CellAnalysis& cell, const InputRoles& roles, const Regime& regime,
                std::uint64_t seed)
      : generator_(seed),
        weights_(static_cast<std::size_t>(cell.params)),
        inputs_(static_cast<std::size_t>(cell.inputs)),
        offset_(inputs_.size()),
        scale_(inputs_.size(), regime.input_scale) {
    std::uniform_real_distribution<double> uniform(-regime.weight_scale, regime.weight_scale);
    for (double& weight : weights_) weight = uniform(generator_);
    const auto memory = static_cast<std::size_t>(roles.memory_input);
    if (memory < offset_.size()) {
      offset_[memory] = roles.memory_direction < 0 ? -regime.gate_bias : regime.gate_bias;
    }
    for (const int side : roles.side_inputs) {
      offset_[static_cast<std::size_t>(side)] = 1;
      scale_[static_cast<std::size_t>(side)] = 0;
    }
  }

  const double* weights() const { return weights_.data(); }

  /// Draws the inputs (U) of the next step; they stay until the next call.
  const double* next_inputs() {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      inputs_[i] = offset_[i] + scale_[i] * normal_(generator_);
    }
    return inputs_.data();
  }

 private:
  std::mt19937_64 generator_;
  std::normal_distribution<double> normal_;
  std::vector<double> weights_, inputs_, offset_, scale_;
};

/// A state (S) that is carried through the steps of a cell in double.
class Walker {
 public:
  /// Starts at zero.
  explicit Walker(const CellAnalysis& cell)
      : cell_(&cell), state_(static_cast<std::size_t>(cell.state)), next_(state_.size()) {}

  void step(const double* u, const double* w) {
    cell_->twice.step(state_.data(), u, w, next_.data());
    state_.swap(next_);
  }
  const std::vector<double>& state() const { return state_; }
  /// No component is infinite, not a number, or on its way there.
  bool is_bounded() const {
    constexpr double kBeyond = 1e100;
    return std::all_of(state_.begin(), state_.end(),
                       [](double x) { return std::abs(x) < kBeyond; });
  }

 private:
  const CellAnalysis* cell_;
  std::vector<double> state_, next_;
};

/// The largest over the components of |a - b| / (1 + the smaller of |a| and |b|): what is verified
/// at a chunk boundary. 0 where both are infinite alike or both not numbers.
template <class T>
double state_mismatch(const T* a, const T* b, int components) {
  double largest = 0;
  for (int s = 0; s < components; ++s) {
    const double x = a[s], y = b[s];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    const double apart = std::abs(x - y) / (1 + std::min(std::abs(x), std::abs(y)));
    largest = std::isfinite(apart) ? std::max(largest, apart) : HUGE_VAL;
  }
  return largest;
}

/// The middle one of some numbers, the upper of two; 0 of none.
inline double median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace pararnn
