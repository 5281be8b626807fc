#include "data/sentencepiece_tokenizer.hpp"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <array>
#include <regex>

#include "base/error.hpp"
#include "data/utf8.hpp"

// libsentencepiece and LibTorch's libc10 both have a variable of this name, of 32 bytes and of 4.
// The loader gives one place to both, and the larger one was written over libc10's flags behind the
// smaller, one of which makes an allocation that fails abort. A program's own comes before either.
extern "C" {
extern char FLAGS_minloglevel[64];
alignas(16) char FLAGS_minloglevel[64] = {};
}

namespace pararnn::data {
namespace {

constexpr size_t kSegmentBytes = 4096;  // the library's trainer drops sentences above 4192
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581

/// The longest beginning of `text` that the library gives back unchanged.
std::string_view faithful_prefix(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    const std::string_view rest = text.substr(end);
    const size_t length = utf8_character(rest);
    if (length == 0 || rest[0] == '\0' || rest.starts_with(kSpaceMark)) break;
    end += length;
  }
  return text.substr(0, end);
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& model) : model_(model) {
    const auto status = processor_.LoadFromSerializedProto(model);
    require(status.ok(), "the SentencePiece model cannot be read: {}", status.ToString());
    require(processor_.eos_id() >= 0, "the SentencePiece model has no piece that ends a document");
    byte_tokens_.fill(-1);
    for (int token = 0; token < processor_.GetPieceSize(); ++token) {
      texts_.push_back(text_of(token));
      if (processor_.IsByte(token)) byte_tokens_[static_cast<uint8_t>(texts_.back()[0])] = token;
    }
    for (const int32_t token : byte_tokens_) {
      require(token >= 0,
              "the SentencePiece model has no pieces for bytes; train one with byte fallback");
    }
    const std::string probe = "  a\tb \r\n \xf0\x9f\x99\x82";
    require(decode(encode(probe)) == probe,
            "the SentencePiece model changes the text it encodes; train one without normalisation");
  }

  int64_t vocabulary_size() const override { return std::ssize(texts_); }
  std::string name() const override { return "sentencepiece"; }
  int32_t end_of_document() const override { return processor_.eos_id(); }
  std::string model() const override { return model_; }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> tokens;
    std::vector<int> piece_tokens;
    while (!text.empty()) {
      std::string_view segment = first_segment(text);
      text.remove_prefix(segment.size());
      while (!segment.empty()) {
        const std::string_view faithful = faithful_prefix(segment);
        if (faithful.empty()) {
          tokens.push_back(byte_tokens_[static_cast<uint8_t>(segment[0])]);
          segment.remove_prefix(1);
          continue;
        }
        const auto status = processor_.Encode({faithful.data(), faithful.size()}, &piece_tokens);
        require(status.ok(), "SentencePiece cannot encode a text: {}", status.ToString());
        tokens.insert(tokens.end(), piece_tokens.begin(), piece_tokens.end());
        segment.remove_prefix(faithful.size());
      }
    }
    return tokens;
  }

  std::string decode(std::span<const int32_t> tokens) const override {
    std::string text;
    for (const int32_t token : tokens) {
      require(token >= 0 && token < vocabulary_size(), "token {} is outside the vocabulary of {}",
              token, vocabulary_size());
      text += texts_[static_cast<size_t>(token)];
    }
    return text;
  }

 private:
  std::string text_of(int token) const {
    if (processor_.IsControl(token) || processor_.IsUnknown(token)) return "";
    const std::string& piece = processor_.IdToPiece(token);
    if (processor_.IsByte(token)) {  // "<0x0A>"
      return {static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16))};
    }
    std::string text;
    for (std::string_view rest = piece; !rest.empty();) {
      const bool space = rest.starts_with(kSpaceMark);
      text += space ? ' ' : rest[0];
      rest.remove_prefix(space ? kSpaceMark.size() : 1);
    }
    return text;
  }

  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
  std::vector<std::string> texts_;          // of each token
  std::array<int32_t, 256> byte_tokens_{};  // of each byte
};

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& samples) {
    for (std::string_view rest : samples) {
      while (!rest.empty()) {
        const std::string_view faithful = faithful_prefix(first_segment(rest));
        if (!faithful.empty()) sentences_.emplace_back(faithful);
        rest.remove_prefix(std::max<size_t>(faithful.size(), 1));
      }
    }
  }
  bool done() const override { return next_ == sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> sentences_;
  size_t next_ = 0;
};

}  // namespace

std::string_view first_segment(std::string_view text) {
  const std::string_view most = text.substr(0, kSegmentBytes);
  const size_t line_end = most.find('\n');
  if (line_end != most.npos) return most.substr(0, line_end + 1);
  return text.substr(0, utf8_boundary(text, kSegmentBytes));
}

std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(const std::string& model) {
  return std::make_shared<SentencePieceTokenizer>(model);
}

std::string train_sentencepiece(const std::vector<std::string>& samples, int64_t vocabulary,
                                int threads) {
  Sentences sentences(samples);
  require(!sentences.done(),
          "there is no valid UTF-8 in the text to learn a vocabulary from; train on bytes instead");
  std::string model;
  const auto status =
      sentencepiece::SentencePieceTrainer::Train({{"model_type", "bpe"},
                                                  {"vocab_size", std::to_string(vocabulary)},
                                                  {"num_threads", std::to_string(threads)},
                                                  {"byte_fallback", "true"},
                                                  {"character_coverage", "0.9995"},
                                                  {"normalization_rule_name", "identity"},
                                                  {"add_dummy_prefix", "false"},
                                                  {"remove_extra_whitespaces", "false"},
                                                  {"allow_whitespace_only_pieces", "true"},
                                                  {"unk_id", "0"},
                                                  {"eos_id", "1"},
                                                  {"bos_id", "-1"},
                                                  {"pad_id", "-1"},
                                                  {"minloglevel", "3"}},
                                                 &sentences, &model);
  if (status.ok()) return model;
  // The library gives the bound only in words: "... to a value <= N" or "required_chars. V vs N".
  const std::string words = status.ToString();
  std::smatch bound;
  if (std::regex_search(words, bound, std::regex("value <= ([0-9]+)"))) {
    throw Error(fmt::format(
        "a vocabulary of {} is too large for this text: ask for at most {}, or give more text",
        vocabulary, bound[1].str()));
  }
  if (std::regex_search(words, bound, std::regex("required_chars.* vs ([0-9]+)"))) {
    throw Error(fmt::format("a vocabulary of {} is too small for this text: ask for at least {}",
                            vocabulary, bound[1].str()));
  }
  throw Error(fmt::format("SentencePiece cannot learn a vocabulary of {}: {}", vocabulary, words));
}

}  // namespace pararnn::data
