// A folder that one process at a time works in. The lock is the system's (flock) on a file in the
// folder, so it ends with its process, however that ends; a file that is left over locks nothing.
#pragma once

#include <filesystem>
#include <string_view>

namespace pararnn::data {

/// Holds the lock of a folder while it lives.
class FolderLock {
 public:
  /// Makes the folder if there is none, and locks it. Throws Error if another process holds the
  /// lock: "process 4711 is `doing` the folder". A file system that has no locks gives none.
  FolderLock(const std::filesystem::path& folder, std::string_view doing);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int folder_ = -1, file_ = -1;  // descriptors
};

/// Whether there is nothing in a folder but its lock.
bool is_empty_but_for_lock(const std::filesystem::path& folder);

/// Deletes all that is in a folder but its lock, as far as that can be deleted.
void clear_but_for_lock(const std::filesystem::path& folder);

}  // namespace pararnn::data
