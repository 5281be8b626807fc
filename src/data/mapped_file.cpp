#include "data/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.hpp"

namespace pararnn::data {

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  const auto fail = [&](int reason) {
    if (descriptor_ >= 0) ::close(descriptor_);
    throw Error(fmt::format("cannot read {}: {}", path_.string(), std::strerror(reason)));
  };
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail(errno);
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) fail(errno);
  if (S_ISDIR(status.st_mode)) fail(EISDIR);
  size_ = S_ISREG(status.st_mode) ? status.st_size : 0;
  if (size_ == 0) return;
  void* address =
      ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, descriptor_, 0);
  if (address == MAP_FAILED) fail(errno);
  bytes_ = static_cast<const char*>(address);
}

MappedFile::~MappedFile() {
  if (bytes_ != nullptr) ::munmap(const_cast<char*>(bytes_), static_cast<size_t>(size_));
  ::close(descriptor_);
}

std::string_view MappedFile::read(int64_t begin, int64_t count) const {
  require(begin >= 0 && count >= 0 && begin <= size_ && count <= size_ - begin,
          "bytes {} to {} of {} were asked for, which has {}", begin, begin + count, path_.string(),
          size_);
  struct stat status;
  require(
      ::fstat(descriptor_, &status) == 0 && status.st_size >= size_,
      "{} was cut short while it was being read; put it back, or start again with what there is",
      path_.string());
  return {bytes_ + begin, static_cast<size_t>(count)};
}

std::shared_ptr<const MappedFile> MappedFiles::operator[](size_t number) const {
  const std::lock_guard lock(mutex_);
  Slot& slot = slots_[number % slots_.size()];
  if (slot.file != nullptr && slot.number == number) return slot.file;
  const File& wanted = files_[number];
  auto file = std::make_shared<const MappedFile>(wanted.path);
  require(file->size() == wanted.size,
          "{} had {} bytes when the data was opened and has {} now; do not change the data while "
          "it is in use",
          wanted.path.string(), wanted.size, file->size());
  slot = {number, std::move(file)};
  return slot.file;
}

std::string read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return std::string(file.read(0, file.size()));
}

}  // namespace pararnn::data
