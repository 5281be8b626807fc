#include "data/output_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "data/mapped_file.hpp"

namespace pararnn::data {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

void require_written(bool written, const std::filesystem::path& path) {
  if (written) return;
  const int reason = errno;
  throw Error(fmt::format(
      "cannot write {}: {}{}", path.string(), std::strerror(reason),
      reason == ENOSPC || reason == EDQUOT ? "; free some space, or write to another disk" : ""));
}

}  // namespace

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  require_written(descriptor_ >= 0, path_);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write_through(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    require_written(count >= 0, path_);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void OutputFile::write(std::string_view bytes) {
  buffer_.append(bytes);
  if (buffer_.size() < kBufferBytes) return;
  write_through(buffer_);
  buffer_.clear();
}

void OutputFile::rewrite(int64_t position, std::string_view bytes) {
  write_through(buffer_);
  buffer_.clear();
  const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), position);
  require_written(count == static_cast<ssize_t>(bytes.size()), path_);
}

void OutputFile::close() {
  write_through(buffer_);
  buffer_.clear();
  require_written(::fsync(descriptor_) == 0, path_);
  const int descriptor = std::exchange(descriptor_, -1);
  require_written(::close(descriptor) == 0, path_);
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  OutputFile file(path);
  file.write(bytes);
  file.close();
}

std::string read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return std::string(file.read(0, file.size()));
}

void force_to_disk(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  // Some file systems have nothing to force of a folder.
  const bool forced = descriptor >= 0 && (::fsync(descriptor) == 0 || errno == EINVAL);
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  errno = reason;
  require_written(forced, path);
}

void rename_folder(const std::filesystem::path& aside, const std::filesystem::path& folder) {
  require_written(::rename(aside.c_str(), folder.c_str()) == 0, folder);
}

}  // namespace pararnn::data
