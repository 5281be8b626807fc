#include "jit/source.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/error.hpp"
#include "jit/system.hpp"

namespace pararnn::jit {

std::vector<Header> read_headers(const std::string& folder) {
  namespace fs = std::filesystem;
  const fs::path root = folder;
  std::vector<Header> headers;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(root / "pararnn", error), end; entry != end;
       entry.increment(error)) {
    const fs::path& path = entry->path();
    if (path.extension() != ".hpp") continue;
    std::optional<std::string> text = read_file(path);
    require(text.has_value(), "cannot read '{}'", path.string());
    headers.push_back({path.lexically_relative(root).string(), *std::move(text)});
  }
  require(!error && !headers.empty(),
          "there are no headers of the engine in '{}': the folder to give holds pararnn/cells.hpp",
          folder);
  std::sort(headers.begin(), headers.end(),
            [](const Header& a, const Header& b) { return a.name < b.name; });
  return headers;
}

std::vector<Header> engine_headers() {
  const std::string folder = environment("PARARNN_KERNEL_DIR");
  return folder.empty() ? embedded_headers() : read_headers(folder);
}

}  // namespace pararnn::jit
