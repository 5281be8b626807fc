#include "train/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

namespace pararnn::train {
namespace {

size_t terminal_width(std::FILE* out) {
  winsize size{};
  const bool known = ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return known ? size.ws_col - 1u : 79u;
}

}  // namespace

Progress::Progress(std::FILE* out) : out_(out), live_(out != nullptr && isatty(fileno(out))) {}

Progress::~Progress() {
  if (live_line_shown_) show("\n");
}

bool Progress::due() const { return out_ != nullptr && std::chrono::steady_clock::now() >= next_; }

void Progress::update(const std::string& line) {
  if (out_ == nullptr) return;
  next_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(live_ ? 100 : 5000);
  if (!live_) return say(line);
  show(fmt::format("{}{}", erasure(), line.substr(0, terminal_width(out_))));
  live_line_shown_ = true;
}

void Progress::say(std::string_view line) {
  show(fmt::format("{}{}\n", erasure(), line));
  live_line_shown_ = false;
}

void Progress::show(std::string_view text) {
  if (out_ == nullptr) return;
  if (std::fwrite(text.data(), 1, text.size(), out_) == text.size() && std::fflush(out_) == 0)
    return;
  // A terminal that goes away sends SIGHUP, and whoever ignores that goes on.
  if (!live_) failure_ = std::strerror(errno);
  out_ = nullptr;
}

/// What takes the live line away.
std::string_view Progress::erasure() const { return live_line_shown_ ? "\r\x1b[K" : ""; }

std::string format_duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
}

std::string format_count(double count) {
  if (count < 1e3) return fmt::format("{:.0f}", count);
  if (count < 1e6) return fmt::format("{:.1f}k", count / 1e3);
  return fmt::format("{:.1f}M", count / 1e6);
}

}  // namespace pararnn::train
