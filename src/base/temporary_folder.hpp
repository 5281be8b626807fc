// A folder for files that nobody else shall see, removed with all that is in it.
#pragma once

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/error.hpp"

namespace pararnn {

class TemporaryFolder {
 public:
  /// In $TMPDIR. Throws Error if it cannot be made.
  TemporaryFolder() {
    const std::filesystem::path place = std::filesystem::temp_directory_path();
    std::string pattern = (place / "pararnn-XXXXXX").string();
    const bool made = ::mkdtemp(pattern.data()) != nullptr;
    const std::string reason = std::strerror(errno);
    require(made, "cannot make a folder in '{}' ({}); TMPDIR names another", place.string(),
            reason);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace pararnn
