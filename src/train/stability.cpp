#include "train/stability.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pararnn::train {
namespace {

double z_score(const std::vector<double>& values, double value) {
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double other : values) squares += (other - mean) * (other - mean);
  const double deviation = std::max(std::sqrt(squares / count), 1e-3 * std::abs(mean));
  return deviation > 0 ? (value - mean) / deviation : 0;
}

}  // namespace

void Stability::add_skipped() {
  ++skipped;
  ++skipped_in_a_row;
}

double Stability::add(double loss) {
  skipped_in_a_row = 0;
  const double z = std::ssize(recent) < kFewestLosses ? 0 : z_score(recent, loss);
  recent.push_back(loss);
  if (std::ssize(recent) > kRecentLosses) recent.erase(recent.begin());
  return z;
}

}  // namespace pararnn::train
