// Asking a run to stop. The first Ctrl-C (SIGINT), SIGTERM or SIGHUP only leaves a note, which the
// training loop reads between two steps, so that it can write a checkpoint; a second one leaves at
// once.
#pragma once

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
  struct sigaction interrupt_, terminate_, hangup_;  // what was there before
};

}  // namespace pararnn::train
