// Asking a run to stop. The first Ctrl-C (SIGINT), SIGTERM or SIGHUP only leaves a note, which the
// training loop reads between two steps, so that it can write a checkpoint; a second one leaves at
// once. A signal that is ignored, as nohup does with SIGHUP, stays so.
#pragma once

#include <array>
#include <csignal>

namespace pararnn::train {

/// While alive, the three signals leave a note instead of ending the program. One at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The number of the signal that came, or 0.
  int received() const;

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kSignals.size()> before_;  // what was there before
};

}  // namespace pararnn::train
