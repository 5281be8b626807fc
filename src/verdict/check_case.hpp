// One comparison of the scan with the plain loop: a random problem, run forward and backward,
// judged by the bounds of reference_bounds.hpp.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "kernels/scan_options.hpp"
#include "pararnn/reference.hpp"

namespace pararnn {

/// A random problem and how to run it.
struct CheckCase {
  std::string cell = "gru";
  int64_t batch = 2, steps = 1024, channels = 32;
  double weight_scale = 1, gate_bias = 0;
  std::string dtype = "float32";
  std::string device = "cpu";  // or "cuda:0"
  uint64_t seed = 0;
  ScanOptions options;
};

/// How far one result is from what it should be: the largest error, and the largest in units of the
/// error that is permitted there; more than 1 is wrong.
struct Deviation {
  double error = 0, of_permitted = 0;
};

inline constexpr std::array<const char*, 5> kResultNames = {"y", "hT", "du", "dw", "dh0"};

struct CheckReport {
  ScanStatistics forward, backward;
  std::array<Deviation, 5> from_loop;        // y, hT, du, dw, dh0 against the loop's
  std::array<Deviation, 5> from_trajectory;  // against those along the result's own states
  Deviation step;          // |y_t - f(h_{t-1}, u_t)|, and the same of whole states at checkpoints
  Deviation boundary;      // between a chunk's start and the end of the one before
  double loop_error = 0;   // of y, by the plain loop in float32; 0 for float64
  double predictable = 1;  // share of y whose permitted error is below a hundredth
  bool rounded_right = true;  // half tensors: as half_is_right says

  /// The largest of all deviations, in units of what is permitted.
  double worst() const;
  bool passed() const { return rounded_right && worst() <= 1; }
};

/// The numbers of a problem on the host, one behind another; shapes as in ops/scan/scan.hpp.
struct ProblemNumbers {
  Shape shape;
  std::vector<double> u, w, h0, dy, dhT;
};
struct ResultNumbers {
  std::array<std::vector<double>, 5> of;  // in the order of kResultNames
  std::vector<double> checkpoints;        // of the state, every kChunkUnit steps
};

/// Judges results in the arithmetic of the check's dtype. May be given some of the channels, of all
/// arrays. `forward` and `backward` are the statistics of the run. `half`, if not null, are the
/// results with tensors of the check's dtype that have the same numbers.
CheckReport judge(const CheckCase& check, const ProblemNumbers& problem,
                  const ResultNumbers& results, const ScanStatistics& forward,
                  const ScanStatistics& backward, const ResultNumbers* half = nullptr);

/// All of it: random problem, run and judgement. Throws Error for a dtype, cell or device that
/// there is not.
CheckReport run_check(const CheckCase& check);

}  // namespace pararnn
