#include "data/shard.hpp"

#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "data/mapped_file.hpp"

namespace pararnn::data {
namespace {

static_assert(std::endian::native == std::endian::little,
              "shards are written as they lie in memory");

constexpr int64_t kBlockBytes = 1 << 16;
constexpr int64_t kWideVocabulary = 1 << 16;  // above it a token takes 4 bytes

uint32_t crc(std::string_view bytes, uint32_t before = 0) {
  return static_cast<uint32_t>(
      crc32_z(before, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

template <class T>
std::string_view bytes_of(const T* values, size_t count) {
  return {reinterpret_cast<const char*>(values), count * sizeof(T)};
}

uint32_t crc_of_header(const ShardHeader& header) {
  return crc(bytes_of(&header, 1).substr(0, offsetof(ShardHeader, header_crc)));
}

int64_t padded(int64_t token_bytes) { return (token_bytes + 3) / 4 * 4; }

/// A shard whose header and checksums have been found right.
struct Shard {
  std::filesystem::path path;
  int64_t file_size, tokens, token_bytes;
  int64_t begin;                                  // of its tokens in the row of all shards
  std::vector<uint32_t> checksums;                // of the blocks
  std::unique_ptr<std::atomic<bool>[]> verified;  // blocks
};

Shard open_shard(const std::filesystem::path& path, int64_t vocabulary, ShardHeader& header) {
  const MappedFile file(path);
  const auto damaged = [&](bool right, std::string_view what) {
    require(right, "the shard {} is damaged: {}; make it again with pararnn tokenize",
            path.string(), what);
  };
  damaged(file.size() >= static_cast<int64_t>(sizeof header), "it is shorter than its header");
  std::memcpy(&header, file.read(0, sizeof header).data(), sizeof header);
  damaged(std::memcmp(header.magic, ShardHeader().magic, sizeof header.magic) == 0,
          "it does not begin as shards do");
  damaged(header.header_crc == crc_of_header(header), "its header does not match its checksum");
  require(header.version == ShardHeader().version,
          "the shard {} is of version {}, and this program reads version {}", path.string(),
          header.version, ShardHeader().version);
  const int64_t room = file.size() - static_cast<int64_t>(sizeof header);
  damaged((header.token_bytes == 2 || header.token_bytes == 4) &&
              header.tokens <= static_cast<uint64_t>(room) / header.token_bytes,
          "it is shorter than its header says");
  const auto token_bytes = static_cast<int64_t>(header.tokens * header.token_bytes);
  const int64_t blocks = (token_bytes + kBlockBytes - 1) / kBlockBytes;
  damaged(room == padded(token_bytes) + 4 * blocks, "it has another size than its header says");
  const std::string_view checksums =
      file.read(static_cast<int64_t>(sizeof header) + padded(token_bytes), 4 * blocks);
  damaged(crc(checksums) == header.checksums_crc, "its list of checksums does not match");
  require(static_cast<int64_t>(header.vocabulary) == vocabulary,
          "the shard {} was made for a vocabulary of {}, and the tokenizer beside it has {}",
          path.string(), header.vocabulary, vocabulary);

  Shard shard = {path, file.size(), static_cast<int64_t>(header.tokens), header.token_bytes, 0,
                 {},   nullptr};
  shard.checksums.resize(static_cast<size_t>(blocks));
  std::copy(checksums.begin(), checksums.end(), reinterpret_cast<char*>(shard.checksums.data()));
  shard.verified = std::make_unique<std::atomic<bool>[]>(shard.checksums.size());
  return shard;
}

std::vector<MappedFiles::File> files_of(const std::vector<Shard>& shards) {
  std::vector<MappedFiles::File> files;
  for (const Shard& shard : shards) files.push_back({shard.path, shard.file_size});
  return files;
}

class ShardSource : public TokenSource {
 public:
  ShardSource(std::vector<Shard> shards, int64_t vocabulary, int64_t bytes, std::string name)
      : shards_(std::move(shards)),
        files_(files_of(shards_)),
        vocabulary_(vocabulary),
        bytes_(bytes),
        name_(std::move(name)) {
    for (Shard& shard : shards_) {
      shard.begin = size_;
      size_ += shard.tokens;
    }
  }

  int64_t size() const override { return size_; }
  int64_t bytes() const override { return bytes_; }
  std::string name() const override { return name_; }

 private:
  void read_checked(int64_t begin, std::span<int32_t> out) const override {
    const auto after =
        std::upper_bound(shards_.begin(), shards_.end(), begin,
                         [](int64_t at, const Shard& shard) { return at < shard.begin; });
    for (auto number = static_cast<size_t>(after - shards_.begin()) - 1; !out.empty(); ++number) {
      const int64_t offset = begin - shards_[number].begin;
      const int64_t count = std::min<int64_t>(shards_[number].tokens - offset, std::ssize(out));
      if (shards_[number].token_bytes == 2) {
        copy<uint16_t>(number, offset, out.first(static_cast<size_t>(count)));
      } else {
        copy<uint32_t>(number, offset, out.first(static_cast<size_t>(count)));
      }
      out = out.subspan(static_cast<size_t>(count));
      begin += count;
    }
  }

  template <class Stored>
  void copy(size_t number, int64_t offset, std::span<int32_t> out) const {
    const auto file = files_[number];
    const int64_t begin = offset * static_cast<int64_t>(sizeof(Stored));
    const int64_t count = std::ssize(out) * static_cast<int64_t>(sizeof(Stored));
    verify(number, *file, begin, begin + count);
    const char* stored =
        file->read(static_cast<int64_t>(sizeof(ShardHeader)) + begin, count).data();
    for (int32_t& token : out) {
      Stored value;
      std::memcpy(&value, stored, sizeof value);
      stored += sizeof value;
      if (value >= static_cast<uint64_t>(vocabulary_)) {
        throw Error(fmt::format("the shard {} holds the token {}, outside its vocabulary of {}",
                                shards_[number].path.string(), value, vocabulary_));
      }
      token = static_cast<int32_t>(value);
    }
  }

  /// Checks the blocks under bytes [begin, end) of the tokens of a shard that were not checked
  /// before.
  void verify(size_t number, const MappedFile& file, int64_t begin, int64_t end) const {
    const Shard& shard = shards_[number];
    const int64_t all = shard.tokens * shard.token_bytes;
    for (int64_t block = begin / kBlockBytes; block * kBlockBytes < end; ++block) {
      std::atomic<bool>& verified = shard.verified[static_cast<size_t>(block)];
      if (verified.load(std::memory_order_relaxed)) continue;
      const int64_t block_begin = block * kBlockBytes;
      const std::string_view bytes =
          file.read(static_cast<int64_t>(sizeof(ShardHeader)) + block_begin,
                    std::min(kBlockBytes, all - block_begin));
      require(crc(bytes) == shard.checksums[static_cast<size_t>(block)],
              "the shard {} is damaged: tokens near {} do not match their checksum; make it again "
              "with pararnn tokenize",
              shards_[number].path.string(), block_begin / shard.token_bytes);
      verified.store(true, std::memory_order_relaxed);
    }
  }

  std::vector<Shard> shards_;
  MappedFiles files_;
  int64_t vocabulary_;
  int64_t bytes_;
  int64_t size_ = 0;
  std::string name_;
};

}  // namespace

ShardWriter::ShardWriter(const std::filesystem::path& path, int64_t vocabulary) : file_(path) {
  header_.token_bytes = vocabulary > kWideVocabulary ? 4 : 2;
  header_.vocabulary = static_cast<uint64_t>(vocabulary);
  file_.write(bytes_of(&header_, 1));
}

void ShardWriter::append(std::span<const int32_t> tokens, int64_t text_bytes) {
  if (header_.token_bytes == 2) {
    const std::vector<uint16_t> narrow(tokens.begin(), tokens.end());
    add_token_bytes(bytes_of(narrow.data(), narrow.size()));
  } else {
    add_token_bytes(bytes_of(tokens.data(), tokens.size()));
  }
  header_.tokens += tokens.size();
  header_.text_bytes += static_cast<uint64_t>(text_bytes);
}

void ShardWriter::add_token_bytes(std::string_view bytes) {
  file_.write(bytes);
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, static_cast<size_t>(kBlockBytes - block_bytes_));
    block_crc_ = crc(part, block_crc_);
    block_bytes_ += std::ssize(part);
    bytes.remove_prefix(part.size());
    if (block_bytes_ == kBlockBytes) end_block();
  }
}

void ShardWriter::end_block() {
  checksums_.push_back(block_crc_);
  block_crc_ = 0;
  block_bytes_ = 0;
}

void ShardWriter::close() {
  if (block_bytes_ > 0) end_block();
  const auto token_bytes = static_cast<int64_t>(header_.tokens * header_.token_bytes);
  file_.write(std::string(static_cast<size_t>(padded(token_bytes) - token_bytes), '\0'));
  const std::string_view checksums = bytes_of(checksums_.data(), checksums_.size());
  file_.write(checksums);
  header_.checksums_crc = crc(checksums);
  header_.header_crc = crc_of_header(header_);
  file_.rewrite(0, bytes_of(&header_, 1));
  file_.close();
}

std::shared_ptr<const TokenSource> open_shards(const std::vector<std::filesystem::path>& paths,
                                               int64_t vocabulary, std::string name,
                                               uint64_t& fingerprint) {
  std::vector<Shard> shards;
  int64_t bytes = 0;
  for (const auto& path : paths) {
    ShardHeader header;
    shards.push_back(open_shard(path, vocabulary, header));
    bytes += static_cast<int64_t>(header.text_bytes);
    fingerprint = hash_bytes(bytes_of(&header, 1), fingerprint);
  }
  return std::make_shared<ShardSource>(std::move(shards), vocabulary, bytes, std::move(name));
}

}  // namespace pararnn::data
