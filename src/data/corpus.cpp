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

/// The two sides of a corpus, and the bytes of the one that is held out.
struct Split {
  std::vector<Document> training, held_out;

  void add(const TextFile& file, bool hold_out) { add(file, hold_out ? 0 : file.size); }
  /// The file's bytes from `position` on are held out.
  void add(const TextFile& file, int64_t position) {
    if (position > 0) training.push_back({file.path, file.size, 0, position});
    if (position < file.size) held_out.push_back({file.path, file.size, position, file.size});
  }
};

/// What a split should come to: `wanted` bytes held out, at most `slack` more or less, and not all
/// of two bytes or more on one side.
struct Aim {
  double bytes, wanted, slack;

  Aim(int64_t bytes, double share)
      : bytes(static_cast<double>(bytes)),
        wanted(share * this->bytes),
        slack(std::max(std::min(share, 1 - share) / 2 * this->bytes, 1.0)) {}
  double least() const { return std::max(wanted - slack, std::min(bytes - 1, 1.0)); }
  double most() const { return std::min(wanted + slack, bytes - 1); }
  bool met_by(int64_t held_out) const {
    const auto part = static_cast<double>(held_out);
    return part >= least() && part <= most();
  }
};

/// `wanted`, moved on to the next line if one begins nearby.
int64_t line_after(const TextFile& file, int64_t wanted) {
  const MappedFile mapped(file.path);
  const std::string_view text =
      mapped.read(wanted - 1, std::min(mapped.size() - wanted + 1, kBeginningBytes));
  const size_t line_end = text.find('\n');
  const bool usable = line_end != text.npos && wanted + static_cast<int64_t>(line_end) < file.size;
  return usable ? wanted + static_cast<int64_t>(line_end) : wanted;
}

/// Holds out `bytes` at the end of a file, but leaves a byte on each side; from the beginning of a
/// line where `fits` says of what is then held out that it may be.
template <class Fits>
void cut(const TextFile& file, double bytes, Fits fits, Split& split) {
  const int64_t wanted =
      std::clamp<int64_t>(file.size - std::llround(bytes), std::min<int64_t>(1, file.size - 1),
                          std::max<int64_t>(file.size - 1, 0));
  if (wanted <= 0) return split.add(file, /*hold_out=*/false);
  const int64_t line = line_after(file, wanted);
  split.add(file, fits(file.size - line) ? line : wanted);
}

/// Files in [0, 1), by their names.
double place_of(const TextFile& file) {
  return static_cast<double>(hash_bytes(file.name) >> 11) * 0x1p-53;
}

/// Whole files, by their places: where a file stands hangs on nothing but its name.
Split split_by_place(const std::vector<TextFile>& files, double share) {
  std::vector<double> places;
  for (const TextFile& file : files) places.push_back(place_of(file));
  const auto [least, most] = std::minmax_element(places.begin(), places.end());
  *least = 0;
  *most = 1;
  Split split;
  for (size_t i = 0; i < files.size(); ++i) split.add(files[i], places[i] < share);
  return split;
}

/// Whole files in the order of their places as long as they fit, and if they come to too little the
/// end of one that does not.
Split split_by_size(const std::vector<TextFile>& files, const Aim& aim) {
  std::vector<const TextFile*> order;
  for (const TextFile& file : files) order.push_back(&file);
  std::ranges::stable_sort(order, {}, [](const TextFile* file) { return place_of(*file); });
  std::set<const TextFile*> whole;
  int64_t held_out = 0;
  const TextFile* largest = nullptr;  // of those that do not fit
  for (const TextFile* file : order) {
    const auto before = static_cast<double>(held_out);
    if (before < aim.least() && before + static_cast<double>(file->size) <= aim.most()) {
      whole.insert(file);
      held_out += file->size;
    } else if (largest == nullptr || file->size > largest->size) {
      largest = file;
    }
  }
  const bool enough = aim.met_by(held_out);
  Split split;
  for (const TextFile& file : files) {
    if (&file == largest && !enough) {
      const auto fits = [&](int64_t bytes) { return aim.met_by(held_out + bytes); };
      cut(file, aim.wanted - static_cast<double>(held_out), fits, split);
    } else {
      split.add(file, whole.contains(&file));
    }
  }
  return split;
}

/// Divides the files as corpus.hpp says. `fingerprint` is told where it is not by places alone, as
/// it once was whatever came of it.
Split split_files(const std::vector<TextFile>& files, double share, uint64_t& fingerprint) {
  Split split;
  if (share == 0) {
    for (const TextFile& file : files) split.add(file, /*hold_out=*/false);
    return split;
  }
  int64_t bytes = 0;
  for (const TextFile& file : files) bytes += file.size;
  const Aim aim(bytes, share);
  if (files.size() > 1) {
    split = split_by_place(files, share);
  } else {
    cut(
        files[0], aim.wanted, [](int64_t) { return true; }, split);
  }
  if (aim.met_by(total_bytes(split.held_out))) return split;
  fingerprint = hash_bytes("split by size", fingerprint);
  return split_by_size(files, aim);
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

  Split split = split_files(files, held_out_share, corpus.fingerprint);
  corpus.training = std::move(split.training);
  corpus.held_out = std::move(split.held_out);
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
