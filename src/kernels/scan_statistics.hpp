// What the last scans of this process did, read when it is asked for: on a GPU that waits for the
// device.
#pragma once

#include <functional>
#include <utility>

#include "kernels/scan_options.hpp"
#include "pararnn/statistics.hpp"

namespace pararnn {

/// Statistics of the last forward and the last backward scan of this process.
std::pair<ScanStatistics, ScanStatistics> last_scan_statistics();

/// The engine's statistics as callers see them.
ScanStatistics public_statistics(const Statistics& statistics);

/// Reads the statistics of a pass, once it is asked for.
using ReadStatistics = std::function<ScanStatistics()>;

/// Keeps what last_scan_statistics() returns.
void record_forward_statistics(ReadStatistics read);
void record_backward_statistics(ReadStatistics read);

}  // namespace pararnn
