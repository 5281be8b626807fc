#include "nn/generate.hpp"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>

#include "base/error.hpp"
#include "nn/decoder.hpp"
#include "ops/cuda_graph.hpp"

namespace pararnn::nn {
namespace {

using torch::Tensor;
using Clock = std::chrono::steady_clock;

/// What a GPU may have drawn before the host looks.
constexpr int64_t kStepsAhead = 4;
static_assert(kStepsAhead + 1 < Sampler::kRemembered);

struct Read {
  Tensor logits;  // (B,V), after the last token
  LanguageModelState state;
};

/// Reads each prompt; the state has room for `count` tokens behind the longest.
Read read_prompts(LanguageModel& model, const std::vector<std::vector<int32_t>>& prompts,
                  int64_t count, const torch::Device& device) {
  const size_t longest = std::ranges::max(prompts, {}, &std::vector<int32_t>::size).size();
  std::vector<Tensor> logits;
  std::vector<std::vector<std::vector<Tensor>>> states;  // of layer, tensor, prompt
  for (size_t first = 0, next; first < prompts.size(); first = next) {
    next = first + 1;
    while (next < prompts.size() && prompts[next] == prompts[first]) ++next;
    const auto repeat = [&](const Tensor& t) {
      auto sizes = t.sizes().vec();
      sizes[0] = static_cast<int64_t>(next - first);
      return t.expand(sizes);
    };
    const Tensor tokens =
        torch::tensor(std::vector<int64_t>(prompts[first].begin(), prompts[first].end()));
    auto [all, state] = model->forward(tokens.to(device).unsqueeze(0), LanguageModelState{});
    state = model->reserve(state, int64_t(longest - prompts[first].size()) + count);
    logits.push_back(repeat(all.select(1, -1)));
    states.resize(state.layers.size());
    for (size_t i = 0; i < state.layers.size(); ++i) {
      states[i].resize(state.layers[i].size());
      for (size_t j = 0; j < state.layers[i].size(); ++j) {
        states[i][j].push_back(repeat(state.layers[i][j]));
      }
    }
  }
  Read result{.logits = torch::cat(logits), .state = {}};
  for (const auto& layer : states) {
    MixerState joined;
    for (const auto& rows : layer) joined.push_back(torch::cat(rows));
    result.state.layers.push_back(std::move(joined));
  }
  return result;
}

/// The device's steps, as the host launches and awaits them. On a CPU they are done when launched;
/// on a GPU they have a stream of their own, as a graph is not captured on the default one.
class Steps {
 public:
  explicit Steps(const torch::Device& device) {
    if (!device.is_cuda()) return;
    torch::cuda::synchronize(device.index());
    gpu_.emplace(device.type());
    stream_.emplace(gpu_->getStreamFromGlobalPool(device));
  }
  void launch(const std::function<void()>& step) {
    step();
    if (!gpu_) return;
    events_.emplace_back(gpu_->type());
    events_.back().record(stream_->current_stream());
  }
  void await_oldest() {
    if (!gpu_) return;
    events_.front().synchronize();
    events_.pop_front();
  }
  void await_all() {
    if (gpu_) gpu_->synchronizeStream(stream_->current_stream());
  }

 private:
  std::optional<c10::impl::VirtualGuardImpl> gpu_;
  std::optional<c10::StreamGuard> stream_;
  std::deque<c10::Event> events_;
};

}  // namespace

GenerationTimes generate(LanguageModel& model, const std::vector<std::vector<int32_t>>& prompts,
                         int64_t count, const SamplingOptions& options,
                         const std::function<bool(int64_t, int32_t)>& on_token) {
  const auto start = Clock::now();
  for (const auto& prompt : prompts) {
    require(!prompt.empty(),
            "the prompt is empty: give at least one token, such as the end of a document");
  }
  torch::NoGradGuard no_grad;
  const auto rows = static_cast<int64_t>(prompts.size());
  const auto device = model->parameters().front().device();
  Steps steps(device);
  Sampler sampler(options, rows, device);
  if (rows == 0) return {};

  Read read = read_prompts(model, prompts, count, device);
  const std::unique_ptr<Decoder> decoder = make_decoder(model, read.state, read.logits);
  read.state = {};
  const std::function<void()> step = [&] {
    decoder->read(sampler.tokens());
    sampler.draw(decoder->logits());
  };
  // The first step runs as it is, which prepares what a capture needs.
  std::function<void()> next = step;
  const auto launch = [&](int64_t number) {
    if (number == 0) return sampler.draw(read.logits);
    if (number == 2 && device.is_cuda()) next = ops::capture_graph(step);
    next();
  };

  std::vector<bool> goes_on(prompts.size(), true);
  int64_t left = rows, launched = 0;
  GenerationTimes times;
  Clock::time_point second = start;
  // What still runs in the end uses memory that is given back then.
  const std::unique_ptr<Steps, void (*)(Steps*)> finish(&steps, [](Steps* s) { s->await_all(); });
  for (int64_t number = 0; number < count && left > 0; ++number) {
    // The first tokens are not kept waiting.
    const int64_t until = device.is_cuda() && number > 0 ? number + kStepsAhead : number;
    for (; launched < count && launched <= until; ++launched) {
      steps.launch([&] { launch(launched); });
    }
    steps.await_oldest();
    const auto now = Clock::now();
    const auto since = [&](Clock::time_point then) {
      return std::chrono::duration<double>(now - then).count();
    };
    if (number == 0) times.prompt_seconds = since(start);
    if (number == 1) second = now;
    if (number > 1) {
      times.steps = number - 1;
      times.tokens += left;
      times.seconds = since(second);
    }
    const std::vector<int32_t> tokens = sampler.drawn(number);
    for (int64_t row = 0; row < rows; ++row) {
      if (!goes_on[size_t(row)]) continue;
      goes_on[size_t(row)] = on_token(row, tokens[size_t(row)]);
      left -= !goes_on[size_t(row)];
    }
  }
  return times;
}

GenerationTimes generate(LanguageModel& model, std::span<const int32_t> prompt, int64_t count,
                         const SamplingOptions& options,
                         const std::function<bool(int32_t)>& on_token) {
  return generate(model, {std::vector<int32_t>(prompt.begin(), prompt.end())}, count, options,
                  [&](int64_t, int32_t token) { return on_token(token); });
}

}  // namespace pararnn::nn
