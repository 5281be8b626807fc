#include "data/folder_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.hpp"

namespace pararnn::data {
namespace {

constexpr const char* kLockFile = ".lock";

/// This process, as those that wait for it shall call it.
std::string process_name() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on {}", ::getpid(), host.data());
}

/// What the holder of a lock has called itself.
std::string read_holder(int file) {
  std::array<char, 300> name{};
  const ssize_t count = ::pread(file, name.data(), name.size(), 0);
  return count > 0 ? std::string(name.data(), static_cast<size_t>(count)) : "another process";
}

/// Whether `folder` still holds the file that was opened in it: whoever had the lock before may
/// have taken it away.
bool is_in_place(const std::filesystem::path& folder, int file) {
  struct stat opened, there;
  return ::fstat(file, &opened) == 0 && ::stat((folder / kLockFile).c_str(), &there) == 0 &&
         opened.st_dev == there.st_dev && opened.st_ino == there.st_ino;
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder, std::string_view doing) {
  const auto close_both = [&] {
    if (file_ >= 0) ::close(std::exchange(file_, -1));
    if (folder_ >= 0) ::close(std::exchange(folder_, -1));
  };
  for (int attempt = 0; file_ < 0; ++attempt) {
    require(attempt < 100, "cannot lock {}: it is made and deleted again and again",
            folder.string());
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    require(std::filesystem::is_directory(folder), "cannot make the folder {}: {}", folder.string(),
            error ? error.message() : "that is a file");
    folder_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    file_ = ::openat(folder_, kLockFile, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int reason = file_ >= 0 ? 0 : errno;
    if (reason == ENOENT) {  // the folder went away between the two
      close_both();
      continue;
    }
    if (reason != 0) {
      close_both();
      throw Error(fmt::format("cannot write in {}: {}", folder.string(), std::strerror(reason)));
    }
    while (::flock(file_, LOCK_EX | LOCK_NB) != 0 && (reason = errno) == EINTR) {
    }
    if (reason == EWOULDBLOCK) {
      const std::string holder = read_holder(file_);
      close_both();
      throw Error(fmt::format("{} is {} {}; wait for it, or choose another folder", holder, doing,
                              folder.string()));
    }
    if (!is_in_place(folder, file_)) close_both();
  }
  const std::string name = process_name();
  // A holder that cannot write its name is "another process".
  [[maybe_unused]] const bool named =
      ::ftruncate(file_, 0) == 0 && ::pwrite(file_, name.data(), name.size(), 0) > 0;
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : folder_(std::exchange(other.folder_, -1)), file_(std::exchange(other.file_, -1)) {}

FolderLock::~FolderLock() {
  if (file_ < 0) return;
  ::unlinkat(folder_, kLockFile, 0);  // wherever the folder may have moved
  ::close(file_);
  ::close(folder_);
}

bool is_empty_but_for_lock(const std::filesystem::path& folder) {
  return std::ranges::all_of(std::filesystem::directory_iterator(folder), [](const auto& entry) {
    return entry.path().filename() == kLockFile;
  });
}

void clear_but_for_lock(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().filename() != kLockFile) {
      std::filesystem::remove_all(entry.path(), ignored);
    }
  }
}

}  // namespace pararnn::data
