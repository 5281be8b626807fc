#include "jit/disk_cache.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "base/output_file.hpp"
#include "jit/digest.hpp"
#include "jit/system.hpp"

namespace pararnn::jit {
namespace {

namespace fs = std::filesystem;

std::atomic<int> made = 0;

constexpr std::string_view kMagic = "pararnn kernel 1\n";

// What stands before the content of an entry.
std::string entry_head(const std::string& key, std::string_view content) {
  return fmt::format("{}{}\n", kMagic, Digest().add(key).add(content).text());
}

// Makes the folder, for its owner alone: it holds code that will be run. 0 or the reason.
int make_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return 0;
  fs::create_directories(folder.parent_path(), error);
  return ::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST ? 0 : errno;
}

// Held by whoever makes an entry. Gives way with the process; if the file cannot be locked, nobody
// waits, and an entry may be made twice.
class EntryLock {
 public:
  explicit EntryLock(fs::path path)
      : path_(std::move(path)), file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    while (file_ >= 0 && ::flock(file_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~EntryLock() {
    if (file_ < 0) return;
    ::unlink(path_.c_str());
    ::close(file_);
  }
  EntryLock(const EntryLock&) = delete;
  EntryLock& operator=(const EntryLock&) = delete;

 private:
  fs::path path_;
  int file_;
};

}  // namespace

std::optional<std::string> DiskCache::load(const std::string& key) const {
  if (folder_.empty()) return std::nullopt;
  const std::optional<std::string> entry = read_file(folder_ / key);
  const size_t head = entry_head(key, "").size();
  if (!entry || entry->size() < head) return std::nullopt;
  std::string content = entry->substr(head);
  if (!entry->starts_with(entry_head(key, content))) return std::nullopt;
  return content;
}

void DiskCache::store(const std::string& key, std::string_view content) const {
  if (folder_.empty()) return;
  static std::atomic<int> counter = 0;
  std::string failure;
  if (const int reason = make_folder(folder_)) {
    failure = std::strerror(reason);
  } else {
    try {
      write_file(folder_ / key, entry_head(key, content).append(content),
                 {.mode = 0600,
                  .suffix = fmt::format(".unfinished.{}.{}", ::getpid(), counter.fetch_add(1))});
    } catch (const Error& error) {
      failure = error.what();
    }
  }
  if (failure.empty()) return;
  static std::once_flag once;
  std::call_once(once, [&] {
    fmt::print(stderr,
               "pararnn: compiled kernels are not kept: cannot write in '{}' ({}); "
               "PARARNN_CACHE_DIR may name another folder\n",
               folder_.string(), failure);
  });
}

std::string DiskCache::load_or_make(const std::string& key,
                                    const std::function<std::string()>& make) const {
  if (std::optional<std::string> content = load(key)) return *std::move(content);
  if (folder_.empty()) {
    ++made;
    return make();
  }
  make_folder(folder_);
  const EntryLock lock(folder_ / (key + ".lock"));
  if (std::optional<std::string> content = load(key)) return *std::move(content);
  ++made;
  std::string content = make();
  store(key, content);
  return content;
}

int entries_made() { return made; }

fs::path cache_folder() {
  if (const std::string folder = environment("PARARNN_CACHE_DIR"); !folder.empty()) return folder;
  if (const std::string folder = environment("XDG_CACHE_HOME"); !folder.empty()) {
    return fs::path(folder) / "pararnn";
  }
  if (const std::string home = environment("HOME"); !home.empty()) {
    return fs::path(home) / ".cache" / "pararnn";
  }
  return {};
}

}  // namespace pararnn::jit
