#include "data/baselines.hpp"

#include <cmath>
#include <map>
#include <set>

#include "data_test_support.hpp"

namespace pararnn::data {
namespace {

ByteModel::Context context_of(std::string_view text) {
  ByteModel::Context context;
  for (const char byte : text) context.append(static_cast<uint8_t>(byte));
  return context;
}

/// The definition in baselines.hpp, read off the documents.
double plain_probability(const std::vector<std::string>& documents, std::string_view context,
                         char byte, int order) {
  if (order < 0) return 1.0 / 256;
  const double lower = plain_probability(documents, context, byte, order - 1);
  if (order > std::ssize(context)) return lower;
  const std::string suffix(context.substr(context.size() - static_cast<size_t>(order)));
  double count = 0, total = 0;
  std::set<char> kinds;
  for (const std::string& document : documents) {
    for (size_t at = suffix.size(); at < document.size(); ++at) {
      if (document.compare(at - suffix.size(), suffix.size(), suffix) != 0) continue;
      total += 1;
      count += document[at] == byte;
      kinds.insert(document[at]);
    }
  }
  const auto different = static_cast<double>(kinds.size());
  return total == 0 ? lower : (count + different * lower) / (total + different);
}

TEST(ByteModel, IsItsDefinition) {
  Random random(1);
  for (int trial = 0; trial < 10; ++trial) {
    ByteModel model;
    std::vector<std::string> documents;
    for (int i = 0; i < 3; ++i) {
      documents.push_back(random_text(random, random_below(random, 300)) + random_bytes(random, 5));
      ByteModel::Context context;
      const auto cut = static_cast<size_t>(random_below(random, std::ssize(documents.back())));
      model.learn(documents.back().substr(0, cut), context);  // in two parts
      model.learn(documents.back().substr(cut), context);
    }
    for (int i = 0; i < 50; ++i) {
      const std::string context = random_text(random, random_below(random, 6));
      const std::string byte = i % 2 == 0 ? random_text(random, 1) : random_bytes(random, 1);
      const auto probabilities =
          model.probabilities(context_of(context), static_cast<uint8_t>(byte[0]));
      for (int order = 0; order < kOrders; ++order) {
        EXPECT_DOUBLE_EQ(
            probabilities[static_cast<size_t>(order)],
            plain_probability(documents,
                              context.substr(std::max<int64_t>(0, std::ssize(context) - 3)),
                              byte[0], order));
      }
    }
  }
}

TEST(ByteModel, ProbabilitiesSumToOne) {
  Random random(2);
  ByteModel model;
  ByteModel::Context context;
  model.learn(random_bytes(random, 50'000) + random_text(random, 200'000),
              context);  // enough for the table to grow
  for (int trial = 0; trial < 50; ++trial) {
    const std::string before =
        random_text(random, random_below(random, 5)) + random_bytes(random, trial % 2);
    std::array<double, kOrders> sums = {};
    for (int byte = 0; byte < 256; ++byte) {
      const auto probabilities =
          model.probabilities(context_of(before), static_cast<uint8_t>(byte));
      for (size_t order = 0; order < kOrders; ++order) {
        EXPECT_GT(probabilities[order], 0);
        sums[order] += probabilities[order];
      }
    }
    for (const double sum : sums) EXPECT_NEAR(sum, 1, 1e-12);
  }
}

std::map<std::string, double> baselines_of(std::string_view training, std::string_view held_out) {
  const TemporaryFolder folder;
  write(folder / "training", training);
  write(folder / "held_out", held_out);
  const auto document = [&](const char* name, std::string_view text) {
    return Document{folder / name, std::ssize(text), 0, std::ssize(text)};
  };
  Dataset dataset;
  dataset.tokenizer = make_byte_tokenizer();
  dataset.training = make_byte_source({document("training", training)}, "training");
  dataset.held_out = make_byte_source({document("held_out", held_out)}, "held out");
  std::map<std::string, double> result;
  for (const Baseline& baseline : measure_baselines(dataset))
    result[baseline.name] = baseline.bits_per_byte;
  return result;
}

TEST(Baselines, NoiseTakesEightBitsAndRepetitionNone) {
  Random random(3);
  const auto noise = baselines_of(random_bytes(random, 300'000), random_bytes(random, 100'000));
  EXPECT_NEAR(noise.at("order-0"), 8, 0.01);
  EXPECT_GT(noise.at("gzip"), 8);
  EXPECT_LT(noise.at("gzip"), 8.01);
  const auto repetition = baselines_of(std::string(300'000, 'a'), std::string(100'000, 'a'));
  for (const auto& [name, bits] : repetition) EXPECT_LT(bits, 0.02) << name;
}

TEST(Baselines, OrderNeedsAsMuchContextAsTheTextHas) {
  // A de Bruijn-like text: the sum of the last two digits and a coin tells the next one.
  Random random(4);
  const auto text = [&](int64_t count) {
    std::string digits = "01";
    while (std::ssize(digits) < count) {
      const int sum = digits[digits.size() - 1] + 3 * digits[digits.size() - 2];
      digits.push_back(static_cast<char>('0' + (sum + random_below(random, 2)) % 8));
    }
    return digits;
  };
  const auto bits = baselines_of(text(1'000'000), text(100'000));
  EXPECT_NEAR(bits.at("order-0"), 3, 0.02);
  EXPECT_NEAR(bits.at("order-2"), 1, 0.02);
  EXPECT_NEAR(bits.at("order-3"), 1, 0.02);
  EXPECT_GT(bits.at("order-1"), bits.at("order-2"));
}

TEST(Baselines, WithoutHeldOutTextThereAreNone) { EXPECT_TRUE(baselines_of("text", "").empty()); }

}  // namespace
}  // namespace pararnn::data
