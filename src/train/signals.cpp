#include "train/signals.hpp"

#include <unistd.h>

#include <string_view>

namespace pararnn::train {
namespace {

volatile std::sig_atomic_t received_signal = 0;

void note_signal(int signal) {
  if (received_signal != 0) _exit(128 + signal);
  received_signal = signal;
  constexpr std::string_view text =
      "\npararnn: stopping after this step to write a checkpoint (once more leaves at once)\n";
  // A terminal that is gone is no reason not to stop properly.
  [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

StopSignals::StopSignals() {
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &interrupt_);
  sigaction(SIGTERM, &action, &terminate_);
  sigaction(SIGHUP, &action, &hangup_);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &interrupt_, nullptr);
  sigaction(SIGTERM, &terminate_, nullptr);
  sigaction(SIGHUP, &hangup_, nullptr);
}

int StopSignals::received() const { return received_signal; }

}  // namespace pararnn::train
