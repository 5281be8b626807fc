#include "kernels/scan_statistics.hpp"

#include <mutex>

namespace pararnn {
namespace {

std::mutex statistics_mutex;
// Never destroyed: when a process ends, what holds memory of a GPU may be gone before.
auto& statistics = *new std::pair<ReadStatistics, ReadStatistics>;

}  // namespace

ScanStatistics public_statistics(const Statistics& s) {
  return {std::string(way_name(s.plan.way)),
          s.plan.chunk,
          s.plan.chunks,
          s.plan.burn_in,
          s.largest_mismatch,
          s.newton_iterations,
          s.columns,
          s.columns_corrected,
          s.columns_repaired};
}

void record_forward_statistics(ReadStatistics read) {
  const std::lock_guard lock(statistics_mutex);
  statistics.first = std::move(read);
}

void record_backward_statistics(ReadStatistics read) {
  const std::lock_guard lock(statistics_mutex);
  statistics.second = std::move(read);
}

std::pair<ScanStatistics, ScanStatistics> last_scan_statistics() {
  const std::lock_guard lock(statistics_mutex);
  const auto read = [](const ReadStatistics& f) { return f ? f() : ScanStatistics{}; };
  return {read(statistics.first), read(statistics.second)};
}

}  // namespace pararnn
