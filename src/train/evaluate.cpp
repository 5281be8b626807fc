#include "train/evaluate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/error.hpp"
#include "train/device.hpp"

namespace pararnn::train {
namespace {

/// `count` predictions: of the tokens after [begin, begin + count).
struct Window {
  int64_t begin, count;
};

std::vector<Window> choose_windows(int64_t predictions, int64_t context, int64_t tokens) {
  const int64_t all = (predictions + context - 1) / context;
  const int64_t chosen =
      tokens == 0 ? all : std::clamp<int64_t>((tokens + context - 1) / context, 1, all);
  std::vector<Window> windows;
  for (int64_t i = 0; i < chosen; ++i) {
    const int64_t begin = i * all / chosen * context;
    windows.push_back({begin, std::min(context, predictions - begin)});
  }
  return windows;
}

}  // namespace

double Score::perplexity() const { return std::exp(loss()); }

double Score::bits_per_byte() const {
  return nats / std::numbers::ln2 / static_cast<double>(bytes);
}

Score evaluate(nn::LanguageModel& model, const data::TokenSource& source,
               const data::Tokenizer& tokenizer, const EvaluationOptions& options) {
  require(source.size() >= 2, "the text to evaluate has {} tokens: at least 2 are needed",
          source.size());
  const torch::NoGradGuard no_gradient;
  const auto device = model->parameters().front().device();
  const auto start = std::chrono::steady_clock::now();
  const int64_t context = options.context > 0 ? options.context : options.length;
  const std::vector<Window> windows = choose_windows(source.size() - 1, context, options.tokens);

  Score score;
  torch::Tensor nats = torch::zeros({}, torch::dtype(torch::kFloat64).device(device));
  std::vector<int32_t> tokens;
  for (size_t first = 0; first < windows.size();) {
    // Windows of one length side by side: only the last of the text can be shorter.
    size_t last = first;
    while (last < windows.size() && static_cast<int64_t>(last - first) < options.batch &&
           windows[last].count == windows[first].count) {
      ++last;
    }
    const auto rows = static_cast<int64_t>(last - first);
    nn::LanguageModelState state;
    for (int64_t offset = 0; offset < windows[first].count; offset += options.length) {
      const int64_t piece = std::min(options.length, windows[first].count - offset);
      tokens.resize(static_cast<size_t>(rows * (piece + 1)));
      for (int64_t row = 0; row < rows; ++row) {
        const std::span<int32_t> text(tokens.data() + row * (piece + 1),
                                      static_cast<size_t>(piece + 1));
        source.read(windows[first + static_cast<size_t>(row)].begin + offset, text);
        score.bytes += static_cast<int64_t>(tokenizer.decode(text.subspan(1)).size());
      }
      const torch::Tensor text = tokens_on(device, tokens, rows, piece + 1);  // (R,T+1)
      const torch::Tensor inputs = text.slice(1, 0, piece);
      const torch::Tensor anew =
          options.documents ? inputs == tokenizer.end_of_document() : torch::Tensor();
      ops::CrossEntropy loss;
      if (windows[first].count <= options.length) {
        loss = model->loss_of_whole(inputs, text.slice(1, 1), {}, anew);
      } else {
        std::tie(loss, state) = model->loss(inputs, text.slice(1, 1), {}, state, anew);
      }
      nats.add_(loss.cross_entropy, rows * piece);
      score.tokens += rows * piece;
    }
    first = last;
  }
  score.nats = nats.item<double>();
  score.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return score;
}

}  // namespace pararnn::train
