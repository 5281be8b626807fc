#include "data/token_source.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "data/mapped_file.hpp"

namespace pararnn::data {
namespace {

std::vector<MappedFiles::File> files_of(const std::vector<Document>& documents) {
  std::vector<MappedFiles::File> files;
  for (const Document& document : documents) files.push_back({document.path, document.file_size});
  return files;
}

class ByteSource : public TokenSource {
 public:
  ByteSource(std::vector<Document> documents, std::string name)
      : documents_(std::move(documents)), files_(files_of(documents_)), name_(std::move(name)) {
    int64_t end = 0;
    for (const Document& document : documents_) {
      starts_.push_back(end);
      end += document.end - document.begin + 1;
    }
    size_ = std::max<int64_t>(end - 1, 0);  // nothing follows the last document
  }

  int64_t size() const override { return size_; }
  int64_t bytes() const override { return total_bytes(documents_); }
  std::string name() const override { return name_; }

 private:
  void read_checked(int64_t begin, std::span<int32_t> out) const override {
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), begin);
    for (auto number = static_cast<size_t>(after - starts_.begin()) - 1; !out.empty(); ++number) {
      const Document& document = documents_[number];
      const int64_t offset = begin - starts_[number];
      const int64_t left = document.end - document.begin - offset;
      const int64_t count = std::min<int64_t>(left, std::ssize(out));
      if (count > 0) {
        const auto file = files_[number];
        const std::string_view bytes = file->read(document.begin + offset, count);
        std::transform(bytes.begin(), bytes.end(), out.begin(),
                       [](char byte) { return static_cast<uint8_t>(byte); });
      }
      out = out.subspan(static_cast<size_t>(count));
      begin += count;
      if (out.empty()) return;
      out[0] = kByteEndOfDocument;
      out = out.subspan(1);
      begin += 1;
    }
  }

  std::vector<Document> documents_;
  MappedFiles files_;
  std::vector<int64_t> starts_;  // of the documents in the row
  std::string name_;
  int64_t size_;
};

}  // namespace

void TokenSource::read(int64_t begin, std::span<int32_t> out) const {
  require(begin >= 0 && std::ssize(out) <= size() - begin,
          "tokens {} to {} of {} were asked for, which has {}", begin, begin + std::ssize(out),
          name(), size());
  if (!out.empty()) read_checked(begin, out);
}

std::shared_ptr<const TokenSource> make_byte_source(std::vector<Document> documents,
                                                    std::string name) {
  return std::make_shared<ByteSource>(std::move(documents), std::move(name));
}

void visit_text(const TokenSource& source, const Tokenizer& tokenizer, int64_t most_tokens,
                const std::function<void(std::string_view text, bool continues)>& visit) {
  constexpr int64_t kPart = 1 << 16;
  const int64_t parts = (source.size() + kPart - 1) / kPart;
  const int64_t visited = std::min(parts, std::max<int64_t>(most_tokens / kPart, 1));
  std::vector<int32_t> tokens;
  bool inside = false;  // a document that the tokens before have begun
  int64_t expected = 0;
  for (int64_t i = 0; i < visited; ++i) {
    const int64_t begin = i * parts / visited * kPart;
    tokens.resize(static_cast<size_t>(std::min(kPart, source.size() - begin)));
    source.read(begin, tokens);
    inside = inside && begin == expected;
    expected = begin + std::ssize(tokens);
    for (auto at = tokens.begin();;) {
      const auto end = std::find(at, tokens.end(), tokenizer.end_of_document());
      if (at != end) {
        visit(tokenizer.decode({at, end}), inside);
        inside = true;
      }
      if (end == tokens.end()) break;
      inside = false;
      at = end + 1;
    }
  }
}

}  // namespace pararnn::data
