#include "data/baselines.hpp"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"

namespace pararnn::data {
namespace {

/// Bytes of the gzip file, at the best compression, of a text given in parts.
class GzipCounter {
 public:
  GzipCounter() {
    constexpr int kGzipWindow = 15 + 16;  // the largest window, with gzip's header
    const int status =
        deflateInit2(&stream_, Z_BEST_COMPRESSION, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY);
    require(status == Z_OK, "zlib cannot start: {}", zError(status));
  }
  ~GzipCounter() { deflateEnd(&stream_); }
  GzipCounter(const GzipCounter&) = delete;
  GzipCounter& operator=(const GzipCounter&) = delete;

  void add(std::string_view text) { run(text, Z_NO_FLUSH); }
  int64_t finish() {
    run({}, Z_FINISH);
    return static_cast<int64_t>(stream_.total_out);
  }

 private:
  void run(std::string_view text, int flush) {
    std::array<Bytef, 1 << 14> out;
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream_.avail_in = static_cast<uInt>(text.size());
    do {
      stream_.next_out = out.data();
      stream_.avail_out = out.size();
      deflate(&stream_, flush);
    } while (stream_.avail_out == 0);
  }

  z_stream stream_ = {};
};

}  // namespace

void ByteModel::Context::append(uint8_t byte) {
  bytes = (bytes << 8 | byte) & 0xffffff;
  length = std::min(length + 1, kOrders - 1);
}

ByteModel::ByteModel() : table_(1 << 16) {}

uint64_t ByteModel::key(uint32_t bytes, int length) {
  const uint64_t kept = bytes & ((uint64_t{1} << 8 * length) - 1);
  return static_cast<uint64_t>(length + 1) << 32 | kept;
}

size_t ByteModel::place(uint64_t key) const {
  size_t at = mix(key) & (table_.size() - 1);
  while (table_[at].key != 0 && table_[at].key != key) at = (at + 1) & (table_.size() - 1);
  return at;
}

void ByteModel::grow() {
  std::vector<String> old = std::exchange(table_, std::vector<String>(2 * table_.size()));
  for (const String& string : old) {
    if (string.key != 0) table_[place(string.key)] = string;
  }
}

void ByteModel::learn(std::string_view text, Context& context) {
  const auto find = [&](uint64_t key) -> String& {
    String& string = table_[place(key)];
    used_ += string.key == 0;
    string.key = key;
    return string;
  };
  for (const char character : text) {
    if (2 * (used_ + 2 * kOrders) > table_.size()) grow();
    const auto byte = static_cast<uint8_t>(character);
    for (int order = 0; order <= context.length; ++order) {
      String& before = find(key(context.bytes, order));
      String& with_byte = find(key(context.bytes << 8 | byte, order + 1));
      before.total += 1;
      before.kinds += with_byte.count == 0;
      with_byte.count += 1;
    }
    context.append(byte);
  }
}

std::array<double, kOrders> ByteModel::probabilities(Context context, uint8_t byte) const {
  std::array<double, kOrders> result;
  double probability = 1.0 / 256;
  for (int order = 0; order < kOrders; ++order) {
    if (order <= context.length) {
      const String& before = table_[place(key(context.bytes, order))];
      const String& with_byte = table_[place(key(context.bytes << 8 | byte, order + 1))];
      if (before.total > 0) {
        probability = (with_byte.count + before.kinds * probability) /
                      (static_cast<double>(before.total) + before.kinds);
      }
    }
    result[static_cast<size_t>(order)] = probability;
  }
  return result;
}

std::vector<Baseline> measure_baselines(const Dataset& dataset, int64_t most_tokens) {
  ByteModel model;
  ByteModel::Context context;
  visit_text(*dataset.training, *dataset.tokenizer, most_tokens,
             [&](std::string_view text, bool continues) {
               if (!continues) context = {};
               model.learn(text, context);
             });

  std::array<double, kOrders> bits = {};
  int64_t bytes = 0;
  GzipCounter gzip;
  visit_text(*dataset.held_out, *dataset.tokenizer, most_tokens,
             [&](std::string_view text, bool continues) {
               if (!continues) context = {};
               for (const char character : text) {
                 const auto byte = static_cast<uint8_t>(character);
                 const auto probabilities = model.probabilities(context, byte);
                 for (size_t order = 0; order < kOrders; ++order)
                   bits[order] -= std::log2(probabilities[order]);
                 context.append(byte);
               }
               bytes += std::ssize(text);
               gzip.add(text);
             });
  if (bytes == 0) return {};

  std::vector<Baseline> baselines;
  for (size_t order = 0; order < kOrders; ++order) {
    baselines.push_back({fmt::format("order-{}", order), bits[order] / static_cast<double>(bytes)});
  }
  baselines.push_back(
      {"gzip", 8.0 * static_cast<double>(gzip.finish()) / static_cast<double>(bytes)});
  return baselines;
}

}  // namespace pararnn::data
