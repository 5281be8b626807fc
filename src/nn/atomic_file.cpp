#include "nn/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.hpp"

namespace pararnn::nn {
namespace {

// A file descriptor and the name of an unfinished file; removes what was not put in place.
class UnfinishedFile {
 public:
  explicit UnfinishedFile(std::filesystem::path target)
      // One name, so that what a killed program left is overwritten and does not pile up.
      : target_(std::move(target)), path_(target_.string() + ".unfinished") {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    check(descriptor_ >= 0);
  }
  UnfinishedFile(const UnfinishedFile&) = delete;
  UnfinishedFile& operator=(const UnfinishedFile&) = delete;
  ~UnfinishedFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!in_place_) ::unlink(path_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written =
          ::write(descriptor_, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
      if (written < 0 && errno == EINTR) continue;
      check(written >= 0);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }

  void put_in_place() {
    check(::fsync(descriptor_) == 0);
    check(::close(std::exchange(descriptor_, -1)) == 0);
    check(::rename(path_.c_str(), target_.c_str()) == 0);
    in_place_ = true;
    // The rename itself is safe once the folder is on the disk.
    const std::filesystem::path folder = target_.has_parent_path() ? target_.parent_path() : ".";
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
      ::fsync(descriptor);
      ::close(descriptor);
    }
  }

 private:
  void check(bool ok) const {
    const int reason = errno;
    require(ok, "cannot write '{}': {}", target_.string(), std::strerror(reason));
  }

  std::filesystem::path target_, path_;
  int descriptor_ = -1;
  bool in_place_ = false;
};

}  // namespace

void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> pieces) {
  UnfinishedFile file(path);
  for (const auto& piece : pieces) file.write(piece);
  file.put_in_place();
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  write_file_atomically(path, std::span(&bytes, 1));
}

}  // namespace pararnn::nn
