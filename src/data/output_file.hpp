// A file being written: buffered, and every failure (a full disk, a missing permission) is an Error
// with the file's name. What must appear whole or not at all is written into a folder aside, which
// is renamed at the end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace pararnn::data {

class OutputFile {
 public:
  /// Creates the file, or empties it.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view bytes);
  /// Overwrites bytes that were written before.
  void rewrite(int64_t position, std::string_view bytes);
  /// Makes everything durable. A file that is not closed is incomplete.
  void close();

 private:
  void write_through(std::string_view bytes);

  std::filesystem::path path_;
  int descriptor_;
  std::string buffer_;
};

/// Writes a whole file and makes it durable.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// The whole content of a small file.
std::string read_file(const std::filesystem::path& path);

/// Forces what is in a file, or the names in a folder, to the disk.
void force_to_disk(const std::filesystem::path& path);

/// Gives the finished folder `aside` its place `folder`; whatever `folder` was must be gone or an
/// empty folder. That is durable once the folder around it is forced to the disk.
void rename_folder(const std::filesystem::path& aside, const std::filesystem::path& folder);

}  // namespace pararnn::data
