#include "data/corpus.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "data/mapped_file.hpp"

namespace pararnn::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBeginningBytes =
    1 << 16;  // of each file, to tell text from binary and for the fingerprint

struct TextFile {
  std::string name;  // inside the corpus
  fs::path path;
  int64_t size;
};

/// Collects the regular files under a folder, each once.
class Walk {
 public:
  explicit Walk(const fs::path& root) {
    enter(root, "");
    std::sort(files.begin(), files.end(),
              [](const TextFile& a, const TextFile& b) { return a.name < b.name; });
  }

  std::vector<TextFile> files;

 private:
  void enter(const fs::path& folder, const std::string& prefix) {
    struct stat status;
    if (::stat(folder.c_str(), &status) != 0 || !first_visit(status)) return;
    std::vector<std::string> names;
    std::error_code error;
    fs::directory_iterator entries(folder, error);
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      names.push_back(entries->path().filename().string());
    }
    require(!error, "cannot read the folder {}: {}", folder.string(), error.message());
    std::sort(names.begin(),
              names.end());  // which of two links to one file counts must not hang on their order
    for (const std::string& name : names) {
      const fs::path path = folder / name;
      if (name.starts_with('.') || ::stat(path.c_str(), &status) != 0)
        continue;  // hidden, or a broken link
      if (S_ISDIR(status.st_mode)) {
        enter(path, prefix + name + "/");
      } else if (S_ISREG(status.st_mode) && first_visit(status)) {
        files.push_back({prefix + name, path, status.st_size});
      }
    }
  }

  bool first_visit(const struct stat& status) {
    return visited_.emplace(status.st_dev, status.st_ino).second;
  }

  std::set<std::pair<dev_t, ino_t>> visited_;
};

/// Drops the binary and the empty files, and adds the others to the fingerprint.
std::vector<TextFile> keep_text(std::vector<TextFile> files, uint64_t& fingerprint) {
  std::erase_if(files, [&](const TextFile& file) {
    if (file.size == 0) return true;
    const MappedFile mapped(file.path);
    const std::string_view beginning = mapped.read(0, std::min(mapped.size(), kBeginningBytes));
    if (looks_binary(beginning)) return true;
    fingerprint = hash_bytes(file.name, fingerprint);
    fingerprint = hash_bytes(beginning, mix(fingerprint ^ static_cast<uint64_t>(file.size)));
    return false;
  });
  return files;
}

/// Where the held-out part of a lone file begins: at its share of the bytes, moved on to the next
/// line if one begins nearby.
int64_t split_position(const TextFile& file, double held_out_share) {
  const auto wanted = file.size - static_cast<int64_t>(std::llround(held_out_share * file.size));
  if (wanted <= 0 || wanted >= file.size) return file.size;
  const MappedFile mapped(file.path);
  const std::string_view text =
      mapped.read(wanted - 1, std::min(mapped.size() - wanted + 1, kBeginningBytes));
  const size_t line_end = text.find('\n');
  const bool usable = line_end != text.npos && wanted + static_cast<int64_t>(line_end) < file.size;
  return usable ? wanted + static_cast<int64_t>(line_end) : wanted;
}

void split_file(const TextFile& file, double held_out_share, Corpus& corpus) {
  const int64_t position = split_position(file, held_out_share);
  corpus.training.push_back({file.path, file.size, 0, position});
  if (position < file.size) corpus.held_out.push_back({file.path, file.size, position, file.size});
}

void split_folder(const std::vector<TextFile>& files, double held_out_share, Corpus& corpus) {
  std::vector<double> places;  // of the files in [0, 1), by their names
  for (const TextFile& file : files) {
    places.push_back(static_cast<double>(hash_bytes(file.name) >> 11) * 0x1p-53);
  }
  const auto [least, most] = std::minmax_element(places.begin(), places.end());
  if (held_out_share > 0) {
    *least = 0;
    *most = 1;
  }
  for (size_t i = 0; i < files.size(); ++i) {
    auto& side = places[i] < held_out_share ? corpus.held_out : corpus.training;
    side.push_back({files[i].path, files[i].size, 0, files[i].size});
  }
}

}  // namespace

Corpus open_corpus(const fs::path& data, double held_out_share) {
  require(held_out_share >= 0 && held_out_share < 1,
          "the held-out share is {} and must be at least 0 and below 1", held_out_share);
  struct stat status;
  if (::stat(data.c_str(), &status) != 0) {
    throw Error(fmt::format("cannot read {}: {}; give a text file or a folder of them",
                            data.string(), std::strerror(errno)));
  }
  const bool folder = S_ISDIR(status.st_mode);
  require(folder || S_ISREG(status.st_mode), "{} is neither a file nor a folder", data.string());
  require(folder || status.st_size > 0, "{} is empty: there is no text to learn from",
          data.string());

  Corpus corpus;
  std::vector<TextFile> found =
      folder ? Walk(data).files : std::vector{TextFile{data.filename(), data, status.st_size}};
  const size_t all = found.size();
  require(all > 0,
          "the folder {} holds no files (names that begin with a dot do not count): there is no "
          "text to learn from",
          data.string());
  const std::vector<TextFile> files = keep_text(std::move(found), corpus.fingerprint);
  require(!files.empty() || folder, "{} is a binary file, not text", data.string());
  require(!files.empty(), "the folder {} holds no text: its {} files are binary or empty",
          data.string(), all);

  if (files.size() == 1) {
    split_file(files[0], held_out_share, corpus);
  } else {
    split_folder(files, held_out_share, corpus);
  }
  corpus.files = static_cast<int64_t>(files.size());
  corpus.skipped = static_cast<int64_t>(all - files.size());
  corpus.fingerprint =
      hash_bytes(fmt::format("held-out share {}", held_out_share), corpus.fingerprint);
  return corpus;
}

int64_t total_bytes(std::span<const Document> documents) {
  int64_t bytes = 0;
  for (const Document& document : documents) bytes += document.end - document.begin;
  return bytes;
}

bool looks_binary(std::string_view beginning) {
  const auto is_control = [](char byte) {
    return static_cast<uint8_t>(byte) < 32 && std::strchr("\t\n\f\r\x1b", byte) == nullptr;
  };
  return beginning.find('\0') != beginning.npos ||
         20 * std::count_if(beginning.begin(), beginning.end(), is_control) > std::ssize(beginning);
}

}  // namespace pararnn::data
