#include "data/tokenizer.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/output_file.hpp"
#include "data/mapped_file.hpp"
#include "data/sentencepiece_tokenizer.hpp"

namespace pararnn::data {
namespace {

constexpr int kTokenizerFormat = 1;

class ByteTokenizer : public Tokenizer {
 public:
  int64_t vocabulary_size() const override { return 257; }
  std::string name() const override { return "bytes"; }
  int32_t end_of_document() const override { return kByteEndOfDocument; }

  std::vector<int32_t> encode(std::string_view text) const override {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    return {bytes, bytes + text.size()};
  }

  std::string decode(std::span<const int32_t> tokens) const override {
    std::string text;
    text.reserve(tokens.size());
    for (const int32_t token : tokens) {
      require(token >= 0 && token <= kByteEndOfDocument,
              "token {} is outside the vocabulary of 257 bytes", token);
      if (token != kByteEndOfDocument) text.push_back(static_cast<char>(token));
    }
    return text;
  }
};

}  // namespace

std::shared_ptr<const Tokenizer> make_byte_tokenizer() { return std::make_shared<ByteTokenizer>(); }

void save_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& folder) {
  nlohmann::ordered_json description = {{"format", kTokenizerFormat},
                                        {"name", tokenizer.name()},
                                        {"vocabulary", tokenizer.vocabulary_size()}};
  const std::string model = tokenizer.model();
  if (!model.empty()) {
    write_file(folder / "tokenizer.model", model);
    description["model"] = "tokenizer.model";
    description["model_hash"] = checksum_of(model);
  }
  write_file(folder / "tokenizer.json", description.dump(2) + "\n");
}

std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json";
  const auto description = nlohmann::json::parse(read_file(path), nullptr, false);
  const auto text = [&](const char* key) {
    return description.is_object() ? description.value(key, nlohmann::json()) : nlohmann::json();
  };
  require(text("format") == kTokenizerFormat,
          "{} is damaged or of another version: its format is not {}", path.string(),
          kTokenizerFormat);

  std::shared_ptr<const Tokenizer> tokenizer;
  if (text("name") == "bytes") {
    tokenizer = make_byte_tokenizer();
  } else if (text("name") == "sentencepiece") {
    const std::filesystem::path model_path = folder / "tokenizer.model";
    const std::string model = read_file(model_path);
    require(text("model_hash") == checksum_of(model),
            "{} is damaged: it is not the model that {} describes", model_path.string(),
            path.string());
    tokenizer = make_sentencepiece_tokenizer(model);
  } else {
    throw Error(fmt::format("{} names the tokenizer {}; there are bytes and sentencepiece",
                            path.string(), text("name").dump()));
  }
  require(text("vocabulary") == tokenizer->vocabulary_size(),
          "{} is damaged: it gives a vocabulary of {}, and the tokenizer has {}", path.string(),
          text("vocabulary").dump(), tokenizer->vocabulary_size());
  return tokenizer;
}

}  // namespace pararnn::data
