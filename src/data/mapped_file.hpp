// Files read through memory maps: the system pages in what is touched and drops it again, so a text
// may be larger than memory. A corpus may also have more files than a process may map or open, so
// MappedFiles keeps only the last few mapped.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

namespace pararnn::data {

/// One file, mapped for reading as long as the object lives.
class MappedFile {
 public:
  /// Error if the file cannot be read.
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  int64_t size() const { return size_; }

  /// The bytes [begin, begin + count), which must lie in the file; the view lives as long as the
  /// object. Error if the file was cut short since it was mapped (to touch what is gone would end
  /// the program).
  std::string_view read(int64_t begin, int64_t count) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
  const char* bytes_ = nullptr;
};

/// The whole content of a small file. Error as MappedFile's.
std::string read_file(const std::filesystem::path& path);

/// Many files by number, mapped when they are wanted. May be used by several threads.
class MappedFiles {
 public:
  struct File {
    std::filesystem::path path;
    int64_t size;
  };

  explicit MappedFiles(std::vector<File> files) : files_(std::move(files)) {}

  /// Error if the file cannot be read or no longer has its size.
  std::shared_ptr<const MappedFile> operator[](size_t number) const;

 private:
  struct Slot {
    size_t number = 0;
    std::shared_ptr<const MappedFile> file;
  };

  std::vector<File> files_;
  mutable std::mutex mutex_;
  mutable std::array<Slot, 128> slots_;  // file n can only be in slot n modulo their number
};

}  // namespace pararnn::data
