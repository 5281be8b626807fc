// A corpus is a text file or a folder of them, seen as a list of documents. Some documents are held
// out, to measure what training never saw: of a folder whole files, chosen by a hash of the path
// inside the folder, so that the choice hangs on nothing else; of a single file its last part.
// Where files chosen so come to much more or less than their share of the bytes, sizes count too:
// files that fit are held out whole, or else the last part of a large one. In a
// folder the walk is recursive and follows symbolic links, but takes each file and folder once (no
// loops, no copies on both sides); binary files and names that begin with a dot are skipped. The
// order is that of the paths, whatever the file system says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace pararnn::data {

inline constexpr double kHeldOutShare = 0.05;

/// The bytes [begin, end) of a file.
struct Document {
  std::filesystem::path path;
  int64_t file_size, begin, end;
};

struct Corpus {
  std::vector<Document> training, held_out;
  int64_t files = 0, skipped = 0;  // text files, and files that are binary or empty
  uint64_t fingerprint = 0;  // hash of paths inside the corpus, sizes, beginnings, and the split
};

/// Error if there is no text at `data`, or something under it cannot be read. `held_out_share` in
/// [0, 1). Of N bytes, share·N are held out, give or take half of that, of the (1 - share)·N that
/// are left, or a byte, whichever decides: neither side has less than half its share. Where the
/// share is above 0 and there are two bytes or more, neither is empty.
Corpus open_corpus(const std::filesystem::path& data, double held_out_share);

/// Bytes of text in all the documents.
int64_t total_bytes(std::span<const Document> documents);

/// Whether a file that begins so is not text: it has a zero byte, or more than one byte in twenty
/// is a control character that text does not use.
bool looks_binary(std::string_view beginning);

}  // namespace pararnn::data
