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
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
}

int StopSignals::received() const { return received_signal; }

}  // namespace pararnn::train
