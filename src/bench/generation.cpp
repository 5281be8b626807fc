#include "bench/generation.hpp"

#include <c10/cuda/CUDACachingAllocator.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "bench/gpu_timer.hpp"
#include "bench/report.hpp"
#include "nn/generate.hpp"
#include "nn/presets.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;

struct GeneratedModel {
  const char *name, *preset;
};
constexpr GeneratedModel kModels[] = {{"134M", "134m"}, {"1.3B", "1b"}};
constexpr int64_t kVocabulary = 32000;

}  // namespace

double weights_of_step(nn::LanguageModel& model, torch::ScalarType precision) {
  double bytes = 0;
  for (const auto& parameter : model->named_parameters()) {
    const bool looked_up = parameter.key() == "embedding" && !model->config().tie_embedding;
    if (looked_up) continue;
    bytes += double(parameter->numel()) * double(c10::elementSize(precision));
  }
  return bytes;
}

json measure_generation(nn::LanguageModel& model, int64_t batch, int64_t tokens,
                        double gigabytes_per_second) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 16; ++i) {
    prompt.push_back(i * 7919 % static_cast<int32_t>(model->config().vocabulary));
  }
  const std::vector<std::vector<int32_t>> prompts(size_t(batch), prompt);
  const nn::GenerationTimes times =
      nn::generate(model, prompts, tokens, {.temperature = 0.8, .top_p = 0.95},
                   [](int64_t, int32_t) { return true; });
  const double step = times.seconds / double(std::max<int64_t>(times.steps, 1));
  const double bytes = weights_of_step(model, model->precision());
  json result = {{"cell", model->config().rnn.cell},
                 {"precision", torch::toString(model->precision())},
                 {"batch", batch},
                 {"tokens", times.tokens},
                 {"tokens_per_second", double(batch) / step},
                 {"step_ms", 1e3 * step},
                 {"prompt_ms", 1e3 * times.prompt_seconds},
                 {"weight_bytes", bytes},
                 {"weights_gigabytes_per_second", bytes / step / 1e9}};
  if (gigabytes_per_second > 0) result["share"] = bytes / step / 1e9 / gigabytes_per_second;
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
  for (const std::string& cell : options.cells) {
    for (const GeneratedModel& size : kModels) {
      if (!on_gpu && &size != kModels) continue;
      nn::ModelConfig config = nn::preset(size.preset);
      config.vocabulary = kVocabulary;
      config.rnn.cell = cell;
      nn::LanguageModel model(config, torch::Device(device));
      model->to_precision(on_gpu ? torch::kBFloat16 : torch::kFloat);
      for (const int64_t batch : {1, 64}) {
        json m = measure_generation(model, batch, on_gpu ? 500 : 20, bandwidth);
        m["model"] = size.name;
        m["copy_gigabytes_per_second"] = bandwidth;
        measurements.push_back(m);
        print(generation_table_row(m));
      }
    }
  }
  return measurements;
}

std::string generation_table_header() {
  return "| model | cell | precision | batch | tokens/s | ms a step | weights, GB/s | of a copy's "
         "rate "
         "|\n|---|---|---|--:|--:|--:|--:|--:|\n";
}

std::string generation_table_row(const json& m) {
  return fmt::format("| {} | {} | {} | {} | {:.0f} | {:.3f} | {:.0f} | {} |\n",
                     m.at("model").get<std::string>(), m.at("cell").get<std::string>(),
                     m.at("precision").get<std::string>(), m.at("batch").get<int64_t>(),
                     m.at("tokens_per_second").get<double>(), m.at("step_ms").get<double>(),
                     m.at("weights_gigabytes_per_second").get<double>(),
                     m.contains("share") ? fmt::format("{:.2f}", m.at("share").get<double>()) : "");
}

}  // namespace pararnn::bench
