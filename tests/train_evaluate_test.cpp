#include "train/evaluate.hpp"

#include <torch/utils.h>

#include "data/dataset.hpp"
#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

/// A random model and a text of a few documents.
class EvaluateTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    torch::manual_seed(GetParam());
    data::Random random(static_cast<uint64_t>(GetParam()));
    for (const char* name : {"a.txt", "b.txt", "c.txt"}) {
      write(folder_ / name, data::random_text(random, 20 + data::random_below(random, 200)));
    }
    dataset_ = data::open_dataset(folder_.path(), {.held_out_share = 0});
    text_.resize(static_cast<size_t>(dataset_.training->size()));
    dataset_.training->read(0, text_);
  }

  Score score(const EvaluationOptions& options) {
    return evaluate(model_, *dataset_.training, *dataset_.tokenizer, options);
  }

  /// Nats of the tokens [begin + 1, end), read from an empty state in one piece.
  double nats(int64_t begin, int64_t end) {
    const torch::NoGradGuard no_gradient;
    const torch::Tensor tokens =
        torch::tensor(std::vector<int64_t>(text_.begin() + begin, text_.begin() + end))
            .unsqueeze(0);
    const torch::Tensor log_probabilities =
        model_->forward(tokens.slice(1, 0, -1)).to(torch::kDouble).log_softmax(-1);
    return -log_probabilities.gather(2, tokens.slice(1, 1).unsqueeze(2)).sum().item<double>();
  }

  int64_t size() const { return std::ssize(text_); }

  TemporaryFolder folder_;
  data::Dataset dataset_;
  std::vector<int32_t> text_;
  nn::LanguageModel model_{nn::ModelConfig{.vocabulary = 257, .width = 16, .layers = 2}};
};

TEST_P(EvaluateTest, CountsEveryTokenAndEveryByteOnce) {
  const Score all = score({.batch = 3, .length = 17});
  EXPECT_EQ(all.tokens, size() - 1);
  EXPECT_EQ(all.bytes, dataset_.training->bytes() - 1);  // the first byte is predicted from nothing
  EXPECT_DOUBLE_EQ(all.bits_per_byte() * static_cast<double>(all.bytes) * std::log(2.0), all.nats);
}

TEST_P(EvaluateTest, IsTheSumOverItsWindows) {
  const int64_t context = 5 + GetParam() * 7;
  double expected = 0;
  for (int64_t begin = 0; begin + 1 < size(); begin += context) {
    expected += nats(begin, std::min(begin + context + 1, size()));
  }
  for (const int64_t batch : {1, 4, 100}) {
    EXPECT_NEAR(score({.batch = batch, .length = context}).nats, expected, 1e-5 * expected);
  }
}

TEST_P(EvaluateTest, CarriesTheStateOverTheWholeContext) {
  const double expected = nats(0, size());
  for (const int64_t length : {3, 16, 1000}) {
    EXPECT_NEAR(score({.length = length, .context = size()}).nats, expected, 1e-5 * expected);
  }
}

TEST_P(EvaluateTest, ReadsDocumentsApart) {
  double expected = 0;
  int64_t begin = 0;
  for (int64_t end = 1; end < size(); ++end) {
    const bool last = end + 1 == size();
    if (text_[static_cast<size_t>(end)] != dataset_.tokenizer->end_of_document() && !last) continue;
    expected += nats(begin, end + 1);
    begin = end;
  }
  for (const int64_t length : {16, 1000}) {
    const Score apart = score({.length = length, .context = size(), .documents = true});
    EXPECT_NEAR(apart.nats, expected, 1e-5 * expected);
    EXPECT_EQ(apart.tokens, size() - 1);
  }
}

TEST_P(EvaluateTest, APartIsSpreadOverTheText) {
  const Score part = score({.length = 10, .tokens = 50});
  EXPECT_EQ(part.tokens, 50);
  EXPECT_EQ(score({.length = 10, .tokens = 1 << 20}).tokens, size() - 1);
}

TEST(Evaluate, NeedsSomethingToPredict) {
  TemporaryFolder folder;
  write(folder / "a.txt", "a");
  const data::Dataset dataset = data::open_dataset(folder / "a.txt", {.held_out_share = 0});
  nn::LanguageModel model(nn::ModelConfig{.width = 16, .layers = 1});
  expect_error([&] { evaluate(model, *dataset.training, *dataset.tokenizer, {}); }, {"1 token"});
}

INSTANTIATE_TEST_SUITE_P(RandomTexts, EvaluateTest, testing::Range(0, 3));

}  // namespace
}  // namespace pararnn::train
