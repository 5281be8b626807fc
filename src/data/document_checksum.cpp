#include "data/document_checksum.hpp"

#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <string_view>
#include <thread>
#include <vector>

#include "base/hash.hpp"
#include "data/mapped_file.hpp"

namespace pararnn::data {
namespace {

constexpr int64_t kPieceBytes = 1 << 22;

/// The bytes [begin, begin + count) of a file.
struct Piece {
  size_t document;
  int64_t begin, count;
};

std::vector<Piece> cut_into_pieces(std::span<const Document> documents) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < documents.size(); ++i) {
    for (int64_t begin = documents[i].begin; begin < documents[i].end; begin += kPieceBytes) {
      pieces.push_back({i, begin, std::min(kPieceBytes, documents[i].end - begin)});
    }
  }
  return pieces;
}

}  // namespace

uint64_t checksum_of_documents(std::span<const Document> documents) {
  std::vector<MappedFiles::File> list;
  for (const Document& document : documents) list.push_back({document.path, document.file_size});
  const MappedFiles files(std::move(list));
  const std::vector<Piece> pieces = cut_into_pieces(documents);
  std::vector<uint32_t> checksums(pieces.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++) {
      const auto file = files[pieces[i].document];
      const std::string_view bytes = file->read(pieces[i].begin, pieces[i].count);
      checksums[i] = static_cast<uint32_t>(
          crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
    }
  };
  const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1,
                                            std::max<size_t>(pieces.size(), 1));
  std::vector<std::future<void>> workers;
  for (size_t i = 0; i < threads; ++i) workers.push_back(std::async(std::launch::async, work));
  for (std::future<void>& worker : workers) worker.get();
  return hash_bytes(
      {reinterpret_cast<const char*>(checksums.data()), checksums.size() * sizeof(checksums[0])});
}

}  // namespace pararnn::data
