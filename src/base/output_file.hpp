// Files being written. A file is either whole, or as it was before: bytes go into a file beside it,
// are brought to the disk, and are put in place by a rename. Every failure (a full disk, a missing
// permission) is an Error with the file's name.
#pragma once

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "pararnn/error.hpp"

namespace pararnn {

/// Throws Error with the reason in errno, unless the file or folder was `written`.
inline void require_written(bool written, const std::filesystem::path& path) {
  if (written) return;
  const int reason = errno;
  const bool full = reason == ENOSPC || reason == EDQUOT;
  throw Error("cannot write " + path.string() + ": " + std::strerror(reason) +
              (full ? "; free some space, or write to another disk" : ""));
}

/// Forces what is in a file, or the names in a folder, to the disk.
inline void force_to_disk(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  // Some file systems have nothing to force of a folder.
  const bool forced = descriptor >= 0 && (::fsync(descriptor) == 0 || errno == EINVAL);
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  errno = reason;
  require_written(forced, path);
}

/// Gives the finished folder `aside` its place `folder`; whatever `folder` was must be gone or an
/// empty folder. That is durable once the folder around it is forced to the disk.
inline void rename_folder(const std::filesystem::path& aside, const std::filesystem::path& folder) {
  require_written(::rename(aside.c_str(), folder.c_str()) == 0, folder);
}

struct OutputFileOptions {
  mode_t mode = 0666;  // of a new file, but for the process's umask
  // Behind the name of the file beside, which one that was killed leaves there and the next one
  // takes. Those who may write one file at the same time need a name each.
  std::string suffix = ".unfinished";
};

class OutputFile {
 public:
  /// The file behind a symbolic link, where `path` is one. What is no file (/dev/stdout, a pipe) is
  /// written to as it is.
  explicit OutputFile(const std::filesystem::path& path, const OutputFileOptions& options = {})
      : path_(path) {
    std::error_code none;
    const std::filesystem::file_status status = std::filesystem::status(path, none);
    is_file_ = !std::filesystem::exists(status) || std::filesystem::is_regular_file(status);
    if (is_file_ && std::filesystem::is_symlink(path, none) && std::filesystem::exists(status)) {
      path_ = std::filesystem::canonical(path);
    }
    unfinished_ = is_file_ ? path_.string() + options.suffix : path_.string();
    if (is_file_) ::unlink(unfinished_.c_str());
    const int fresh = is_file_ ? O_CREAT | O_EXCL : 0;
    descriptor_ = ::open(unfinished_.c_str(), O_WRONLY | O_CLOEXEC | fresh, options.mode);
    require_written(descriptor_ >= 0, path_);
  }
  /// A file that is not closed is not there.
  ~OutputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (is_file_ && !in_place_) ::unlink(unfinished_.c_str());
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view bytes) {
    if (bytes.size() >= kBufferBytes) {
      flush();
      return write_through(bytes);
    }
    buffer_.append(bytes);
    if (buffer_.size() >= kBufferBytes) flush();
  }

  /// Overwrites bytes that were written before.
  void rewrite(int64_t position, std::string_view bytes) {
    flush();
    const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), position);
    require_written(count == static_cast<ssize_t>(bytes.size()), path_);
  }

  /// Makes everything durable and puts it in place.
  void close() {
    flush();
    require_written(::fsync(descriptor_) == 0 || (!is_file_ && errno == EINVAL), path_);
    require_written(::close(std::exchange(descriptor_, -1)) == 0, path_);
    if (!is_file_) return;
    require_written(::rename(unfinished_.c_str(), path_.c_str()) == 0, path_);
    in_place_ = true;
    force_to_disk(path_.has_parent_path() ? path_.parent_path() : ".");
  }

 private:
  static constexpr size_t kBufferBytes = 1 << 20;

  void flush() {
    write_through(buffer_);
    buffer_.clear();
  }
  void write_through(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count =
          ::write(descriptor_, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
      if (count < 0 && errno == EINTR) continue;
      require_written(count >= 0, path_);
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }

  std::filesystem::path path_;
  std::string unfinished_;  // the name of what is written to until it is whole
  bool is_file_ = true, in_place_ = false;
  int descriptor_ = -1;
  std::string buffer_;
};

/// Replaces a file, or makes it.
inline void write_file(const std::filesystem::path& path, std::string_view bytes,
                       const OutputFileOptions& options = {}) {
  OutputFile file(path, options);
  file.write(bytes);
  file.close();
}

}  // namespace pararnn
