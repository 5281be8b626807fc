// What a run shows while it goes: on a terminal one live line that is drawn over, elsewhere a plain
// line now and then; and lines that stay, for events.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

namespace pararnn::train {

class Progress {
 public:
  /// Shows on `out`, live if that is a terminal; on nothing if null. What cannot be shown (a broken
  /// pipe, with SIGPIPE ignored) is lost, and so is all after it.
  explicit Progress(std::FILE* out);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Whether it is time to show something new: ten times a second live, every five seconds plain.
  bool due() const;
  /// Shows the state of the run, in place of what it showed before.
  void update(const std::string& line);
  /// A line that stays.
  void say(std::string_view line);
  /// Why something could not be shown; empty if all was, and for a terminal.
  const std::string& failure() const { return failure_; }

 private:
  void show(std::string_view text);
  std::string_view erasure() const;

  std::FILE* out_;
  std::string failure_;
  bool live_;
  bool live_line_shown_ = false;
  std::chrono::steady_clock::time_point next_{};
};

/// 75 → "1m15s", 4000 → "1h06m", 3.2 → "3s".
std::string format_duration(double seconds);
/// 53210 → "53.2k".
std::string format_count(double count);

}  // namespace pararnn::train
