#include "bench/generation.hpp"

#include <c10/core/StreamGuard.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>
#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "bench/gpu_timer.hpp"
#include "bench/report.hpp"
#include "bench/train.hpp"
#include "nn/decoder.hpp"
#include "nn/presets.hpp"
#include "nn/sampler.hpp"
#include "train/memory.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;
using torch::Tensor;

struct GeneratedModel {
  const char *name, *preset;
};
constexpr GeneratedModel kModels[] = {{"134M", "134m"}, {"1.3B", "1b"}};
constexpr int64_t kVocabulary = 32000;

/// Steps that are not timed: one as it is, which prepares what a capture needs, and, replayed, some
/// until the clocks have settled.
constexpr int64_t kSettlingSteps = 8;

/// Calls visit() with each of the cells in the place of those that the model's layers run; once
/// where they run none.
void for_each_model_of_cells(nn::ModelConfig& config, const std::vector<std::string>& cells,
                             const std::function<void()>& visit) {
  const auto for_each_cell_of_layers = [&](const auto& change) {
    nn::for_each_mixer(config, [&](std::string_view mixer, auto& options) {
      if (nn::has_mixer(config, mixer)) nn::for_each_cell(options, change);
    });
  };
  bool runs_a_cell = false;
  for_each_cell_of_layers([&](const std::string&) { runs_a_cell = true; });
  if (!runs_a_cell) return visit();
  for (const std::string& cell : cells) {
    for_each_cell_of_layers([&](std::string& of_layers) { of_layers = cell; });
    visit();
  }
}

struct Context {
  Tensor logits;  // (batch,V), after the last token
  nn::LanguageModelState state;
};

/// Random tokens, read once, a few at a time, as the state of all rows; with room for `steps`.
Context read_context(nn::LanguageModel& model, int64_t batch, int64_t context, int64_t steps) {
  constexpr int64_t kPiece = 2048;
  const torch::Device device = model->parameters().front().device();
  const Tensor tokens =
      torch::randint(model->config().vocabulary, {1, context}, torch::kLong).to(device);
  Context read;
  for (int64_t first = 0; first < context; first += kPiece) {
    const int64_t length = std::min(kPiece, context - first);
    auto [logits, state] = model->forward(tokens.narrow(1, first, length), read.state);
    read = {logits.select(1, -1).clone(), std::move(state)};
  }
  read.state = model->reserve(read.state, steps);
  const auto repeat = [&](Tensor& t) {
    auto sizes = t.sizes().vec();
    sizes[0] = batch;
    t = t.expand(sizes).contiguous();
  };
  repeat(read.logits);
  for (nn::MixerState& layer : read.state.layers) std::ranges::for_each(layer, repeat);
  return read;
}

/// Seconds of a step of reading a token and drawing the next, of each row.
double time_steps(nn::LanguageModel& model, int64_t batch, int64_t context, int64_t steps) {
  torch::NoGradGuard no_grad;
  const torch::Device device = model->parameters().front().device();
  const auto finish = [&] {
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
  };
  Context read = read_context(model, batch, context, kSettlingSteps + steps);
  const auto decoder = nn::make_decoder(model, read.state, read.logits);
  nn::Sampler sampler({.temperature = 0.8, .top_p = 0.95}, batch, device);
  sampler.draw(read.logits);
  read = {};
  std::function<void()> step = [&] {
    decoder->read(sampler.tokens());
    sampler.draw(decoder->logits());
  };
  finish();
  std::optional<c10::StreamGuard> stream;  // a graph is not captured on the default one
  if (device.is_cuda()) stream.emplace(c10::cuda::getStreamFromPool());
  step();
  if (device.is_cuda()) step = capture_graph(step);
  for (int64_t i = 1; i < kSettlingSteps; ++i) step();
  finish();
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < steps; ++i) step();
  finish();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return seconds.count() / double(steps);
}

}  // namespace

StepBytes bytes_of_step(nn::LanguageModel& model, int64_t batch, double context) {
  const auto bytes_of = [&](const nn::Numbers& numbers) {
    return double(c10::elementSize(model->precision())) * numbers.in_precision +
           double(sizeof(float)) * numbers.in_float32;
  };
  StepBytes bytes;
  for (const auto& parameter : model->named_parameters()) {
    const bool looked_up = parameter.key() == "embedding" && !model->config().tie_embedding;
    if (!looked_up) bytes.weights += double(parameter->nbytes());
  }
  for (const nn::MixerLayers& mixer : nn::sizes_of_mixers(model->config())) {
    const double states = double(batch) * mixer.layers;
    bytes.states += 2 * states * bytes_of(mixer.sizes.state);
    bytes.cache += context * states * bytes_of(mixer.sizes.state_of_token);
  }
  return bytes;
}

json measure_generation(nn::LanguageModel& model, int64_t batch, int64_t context, int64_t steps,
                        double gigabytes_per_second) {
  json result = {{"mixer", model->config().mixer},
                 {"precision", torch::toString(model->precision())},
                 {"batch", batch},
                 {"context", context}};
  nn::for_each_mixer(model->config(), [&](std::string_view mixer, const auto& options) {
    if (!nn::has_mixer(model->config(), mixer)) return;
    nn::for_each_cell(options, [&](const std::string& cell) { result["cell"] = cell; });
  });
  const auto device = model->parameters().front().device();
  // What the rows have in the end, and the one that is repeated.
  const StepBytes last = bytes_of_step(model, batch, double(context + kSettlingSteps + steps));
  const double states = last.states / 2 + last.cache;
  double step = 0;
  try {
    train::run_within_memory({{"states", states * (1 + 1 / double(batch)), "--context"}}, device,
                             [&] { step = time_steps(model, batch, context, steps); });
  } catch (const train::NotEnoughMemory&) {
    result["needed_gigabytes"] = (last.weights + states) / 1e9;
    return result;
  }
  const StepBytes bytes =
      bytes_of_step(model, batch, double(context + kSettlingSteps) + 0.5 * double(steps));
  const double rate = bytes.sum() / step / 1e9;
  result["tokens"] = batch * steps;
  result["tokens_per_second"] = double(batch) / step;
  result["step_ms"] = 1e3 * step;
  result["weight_bytes"] = bytes.weights;
  result["state_bytes"] = bytes.states;
  result["cache_bytes"] = bytes.cache;
  result["gigabytes_per_second"] = rate;
  if (gigabytes_per_second > 0) result["share"] = rate / gigabytes_per_second;
  return result;
}

json measure_generation(const BenchOptions& options, const std::string& device) {
  const bool on_gpu = device == "cuda";
  json measurements = json::array();
  double bandwidth = 0;
  if (on_gpu) {
    bandwidth = gpu_copy_bandwidth(GpuTimer());
    c10::cuda::CUDACachingAllocator::emptyCache();
  }
  print(generation_table_header());
  const auto measure = [&](const nn::ModelConfig& config, const char* name) {
    nn::LanguageModel model(config, torch::Device(device));
    model->to_precision(on_gpu ? torch::kBFloat16 : torch::kFloat);
    for (const int64_t context : options.contexts) {
      for (const int64_t batch : {1, 64}) {
        json m = measure_generation(model, batch, context, on_gpu ? 500 : 20, bandwidth);
        if (on_gpu) c10::cuda::CUDACachingAllocator::emptyCache();
        m["model"] = name;
        m["copy_gigabytes_per_second"] = bandwidth;
        measurements.push_back(m);
        print(generation_table_row(m));
      }
    }
  };
  for (const std::string& mixer : options.mixers) {
    for (const GeneratedModel& size : kModels) {
      if (!on_gpu && &size != kModels) continue;
      nn::ModelConfig config = nn::preset(size.preset, mixer);
      config.vocabulary = kVocabulary;
      for_each_model_of_cells(config, options.cells, [&] { measure(config, size.name); });
    }
  }
  return measurements;
}

std::string generation_table_header() {
  return "| model | mixer | precision | batch | context | tokens/s | ms a step | GB/s | of a "
         "copy's "
         "rate |\n|---|---|---|--:|--:|--:|--:|--:|--:|\n";
}

std::string generation_table_row(const json& m) {
  const std::string about =
      fmt::format("| {} | {} | {} | {} | {} |", m.at("model").get<std::string>(),
                  mixer_label(m.at("mixer").get<std::string>(), m.value("cell", "")),
                  m.at("precision").get<std::string>(), m.at("batch").get<int64_t>(),
                  m.at("context").get<int64_t>());
  if (m.contains("needed_gigabytes")) {
    return fmt::format("{} does not fit: {:.0f} GB | | | |\n", about,
                       m.at("needed_gigabytes").get<double>());
  }
  return fmt::format("{} {:.0f} | {:.3f} | {:.0f} | {} |\n", about,
                     m.at("tokens_per_second").get<double>(), m.at("step_ms").get<double>(),
                     m.at("gigabytes_per_second").get<double>(),
                     m.contains("share") ? fmt::format("{:.2f}", m.at("share").get<double>()) : "");
}

}  // namespace pararnn::bench
