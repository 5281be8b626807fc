#include "kernels/scan_statistics.hpp"

#include <mutex>

namespace pararnn {
namespace {

std::mutex statistics_mutex;
// Never destroyed: when a process ends, what holds memory of a GPU may be gone before.
auto& statistics = *new std::pair<LastStatistics, LastStatistics>;

/// The engine's statistics as callers see them.
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

}  // namespace

void record_forward_statistics(LastStatistics last) {
  const std::lock_guard lock(statistics_mutex);
  statistics.first = std::move(last);
}

void record_backward_statistics(LastStatistics last) {
  const std::lock_guard lock(statistics_mutex);
  statistics.second = std::move(last);
}

std::pair<ScanStatistics, ScanStatistics> last_scan_statistics() {
  const std::lock_guard lock(statistics_mutex);
  const auto read = [](const LastStatistics& last) {
    if (const auto* known = std::get_if<Statistics>(&last)) return public_statistics(*known);
    if (const auto* f = std::get_if<std::function<Statistics()>>(&last)) {
      return public_statistics((*f)());
    }
    return ScanStatistics{};
  };
  return {read(statistics.first), read(statistics.second)};
}

}  // namespace pararnn
