// Files that are either whole or as they were: bytes are written to a file beside, brought to the
// disk, and put in place by a rename.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace pararnn::nn {

/// Replaces the file at `path` by the pieces, one after another. Throws Error with the reason (no
/// folder, no permission, disk full) and then leaves an earlier file as it was and nothing beside
/// it.
void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> pieces);

/// The same for a text.
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

}  // namespace pararnn::nn
