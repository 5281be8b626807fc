// What the operating system is asked for: environment variables and files.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace pararnn::jit {

/// The value of an environment variable; empty if it is not set.
inline std::string environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value ? value : "";
}

/// The bytes of a file; nothing if it cannot be read.
inline std::optional<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string content;
  char piece[1 << 16];
  while (file.read(piece, sizeof piece), file.gcount() > 0) {
    content.append(piece, static_cast<size_t>(file.gcount()));
  }
  if (file.bad()) return std::nullopt;
  return content;
}

}  // namespace pararnn::jit
