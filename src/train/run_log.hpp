// The log of a run: a file with one JSON object a line. A resumed run cuts the log back to where
// its checkpoint was written, so each step is there once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

namespace pararnn::train {

class RunLog {
 public:
  /// Opens the file, keeps its first `bytes` and cuts off the rest.
  RunLog(std::filesystem::path path, int64_t bytes);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  /// Appends a line. Throws Error if it cannot be written.
  void write(const nlohmann::json& event);
  int64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  int descriptor_;
  int64_t bytes_;
};

/// The events of a log. Throws Error if the file cannot be read or has a line that is no event; the
/// last line, which a run may be writing, does not count unless it is whole.
std::vector<nlohmann::json> read_run_log(const std::filesystem::path& path);

}  // namespace pararnn::train
