// A folder of small files by key, which any number of processes read and write at once: an entry is
// written aside and put in place by a rename, and carries a checksum. What is missing, damaged or
// cut short is simply not there; what cannot be written is not kept. The folder may be deleted at
// any time.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace pararnn::jit {

class DiskCache {
 public:
  /// The folder need not exist; an empty path keeps nothing.
  explicit DiskCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// What was stored under `key` (letters and digits), or nothing.
  std::optional<std::string> load(const std::string& key) const;

  /// Keeps `content` under `key`, in place of an earlier entry. If that fails, the first time in a
  /// process says so on stderr.
  void store(const std::string& key, std::string_view content) const;

  /// What is stored under `key`, or else what make() gives, which is stored. Of several processes
  /// or threads that ask at once, one makes it and the others wait.
  std::string load_or_make(const std::string& key, const std::function<std::string()>& make) const;

 private:
  std::filesystem::path folder_;
};

/// How many entries this process has made: what it did not find.
int entries_made();

/// $PARARNN_CACHE_DIR, or $XDG_CACHE_HOME/pararnn, or ~/.cache/pararnn; empty if none can be told.
std::filesystem::path cache_folder();

}  // namespace pararnn::jit
