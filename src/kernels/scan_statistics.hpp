// What the last scans of this process did, read when it is asked for: on a GPU that waits for the
// device.
#pragma once

#include <functional>
#include <utility>
#include <variant>

#include "kernels/scan_options.hpp"
#include "pararnn/statistics.hpp"

namespace pararnn {

/// Statistics of the last forward and the last backward scan of this process.
std::pair<ScanStatistics, ScanStatistics> last_scan_statistics();

/// The statistics of a pass, or what reads them once they are asked for; or none.
using LastStatistics = std::variant<std::monostate, Statistics, std::function<Statistics()>>;

/// Keeps what last_scan_statistics() returns.
void record_forward_statistics(LastStatistics last);
void record_backward_statistics(LastStatistics last);

}  // namespace pararnn
