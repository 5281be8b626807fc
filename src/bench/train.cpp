#include "bench/train.hpp"

#include <fmt/format.h>
#include <torch/cuda.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/temporary_folder.hpp"
#include "bench/host_timer.hpp"
#include "data/dataset.hpp"
#include "train/device.hpp"
#include "train/device_memory.hpp"
#include "train/memory.hpp"
#include "train/model_sizes.hpp"
#include "train/profile.hpp"
#include "train/trainer.hpp"

namespace pararnn::bench {
namespace {

/// Before the time is taken kernels are compiled, plans learned, a graph captured: so many steps,
/// and more until all is settled, or this time is over.
constexpr int64_t kStepsBefore = 20;
constexpr double kMostSecondsBefore = 25;
constexpr int64_t kProfiledSteps = 3;

/// A row of random tokens, the same each time.
class RandomTokens : public data::TokenSource {
 public:
  RandomTokens(int64_t size, int64_t vocabulary) : size_(size), vocabulary_(vocabulary) {}
  int64_t size() const override { return size_; }
  int64_t bytes() const override { return size_; }
  std::string name() const override { return "random tokens"; }

 private:
  void read_checked(int64_t begin, std::span<int32_t> out) const override {
    for (size_t i = 0; i < out.size(); ++i) {
      // SplitMix64 (Steele et al., 2014) of the place.
      uint64_t z = (static_cast<uint64_t>(begin) + i + 1) * 0x9E3779B97F4A7C15u;
      z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
      z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
      out[i] = static_cast<int32_t>((z ^ (z >> 31)) % static_cast<uint64_t>(vocabulary_));
    }
  }
  int64_t size_, vocabulary_;
};

/// A vocabulary without texts.
class RandomTokenizer : public data::Tokenizer {
 public:
  explicit RandomTokenizer(int64_t vocabulary) : vocabulary_(vocabulary) {}
  int64_t vocabulary_size() const override { return vocabulary_; }
  std::vector<int32_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const int32_t>) const override { return {}; }
  std::string name() const override { return "random"; }
  int32_t end_of_document() const override { return 0; }

 private:
  int64_t vocabulary_;
};

data::Dataset random_dataset(int64_t tokens, int64_t vocabulary) {
  return {.tokenizer = std::make_shared<RandomTokenizer>(vocabulary),
          .training = std::make_shared<RandomTokens>(tokens, vocabulary),
          .held_out = std::make_shared<RandomTokens>(0, vocabulary),
          .documents = {},
          .fingerprint = "",
          .description = "random tokens"};
}

/// What tells one measurement from another.
nlohmann::json describe_bench(const TrainBench& bench) {
  nlohmann::json description = {{"size", bench.name},
                                {"mixer", bench.model.mixer},
                                {"precision", bench.train.precision},
                                {"batch", bench.train.batch},
                                {"steps", bench.train.length},
                                {"vocabulary", bench.model.vocabulary}};
  nn::for_each_mixer(bench.model, [&](std::string_view mixer, const auto& options) {
    if (!nn::has_mixer(bench.model, mixer)) return;
    nn::for_each_cell(options, [&](const std::string& cell) { description["cell"] = cell; });
  });
  return description;
}

}  // namespace

std::string mixer_label(const std::string& pattern, const std::string& cell) {
  const nn::ModelConfig defaults;
  std::string label;
  for (const nn::LayerRun& run : nn::parse_layer_pattern(pattern)) {
    std::string name = run.mixer;
    nn::for_each_mixer(defaults, [&](std::string_view mixer, const auto& options) {
      if (mixer == run.mixer) nn::for_each_cell(options, [&](const auto&) { name = cell; });
    });
    label += fmt::format("{}{}", label.empty() ? "" : ",", name);
    if (run.layers > 1) label += fmt::format("*{}", run.layers);
  }
  return label;
}

std::string training_label(const nlohmann::json& m) {
  return fmt::format("{} {} B{} T{}", m["size"].get<std::string>(),
                     mixer_label(m["mixer"], m.value("cell", "")), m["batch"].get<int64_t>(),
                     m["steps"].get<int64_t>());
}

std::string training_label(const TrainBench& bench) {
  return training_label(describe_bench(bench));
}

nlohmann::json measure_training(const TrainBench& bench, const torch::Device& device,
                                const nn::RecomputePlan& recompute) {
  const TemporaryFolder folder;
  const int64_t tokens_of_step = bench.train.batch * bench.train.length * bench.train.accumulate;
  const data::Dataset dataset = random_dataset(tokens_of_step + 1, bench.model.vocabulary);
  train::reset_peak_memory(device);
  train::Trainer trainer(bench.train, bench.model, dataset, folder.path(), device, nullptr,
                         std::make_shared<train::World>(), recompute);
  const auto finish = [&] {
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
  };
  const double first_loss = trainer.train_step().loss;
  const auto begin = std::chrono::steady_clock::now();
  trainer.train_steps(std::min(kStepsBefore, bench.steps));
  while (!trainer.graph().settled() && seconds_since(begin) < kMostSecondsBefore) {
    trainer.train_step();
  }
  if (!trainer.graph().failure().empty()) {
    fmt::print(stderr, "{}: no CUDA graph: {}\n", training_label(bench), trainer.graph().failure());
  }
  const bool graph = trainer.graph().replays();
  finish();
  const auto start = std::chrono::steady_clock::now();
  const double last_loss = trainer.train_steps(bench.steps).loss;
  finish();
  const double seconds = seconds_since(start) / static_cast<double>(bench.steps);
  require(std::isfinite(last_loss), "{}: the loss is {}, so steps were skipped and tell no time",
          training_label(bench), last_loss);
  const double memory = train::peak_memory(device);

  train::Profiler profiler(device);
  trainer.train_steps(kProfiledSteps);
  const train::Profile profile = profiler.stop(kProfiledSteps, folder / "trace.json");

  const double tokens_per_second = static_cast<double>(tokens_of_step) / seconds;
  const double operations = train::operations_per_token(bench.model, bench.train.length);
  const double peak = peak_operations(train::describe(device));
  nlohmann::json measurement = describe_bench(bench);
  measurement.update(
      {{"recompute", train::describe(trainer.model()->recompute(), bench.model.layers)},
       {"graph", graph},
       {"parameters", train::parameter_count(bench.model)},
       {"tokens_per_second", tokens_per_second},
       {"milliseconds", 1e3 * seconds},
       {"operations_per_token", operations},
       {"share_of_peak", nullptr},
       {"peak_gigabytes", nullptr},
       {"first_loss", first_loss},
       {"last_loss", last_loss},
       {"profile", profile.json()}});
  if (!device.is_cpu()) measurement["peak_gigabytes"] = memory / (1 << 30);  // is counted there
  if (peak > 0) {
    measurement["share_of_peak"] = operations * tokens_per_second / peak;
  }
  return measurement;
}

double peak_operations(const std::string& gpu) {
  constexpr std::array<std::pair<std::string_view, double>, 3> kPeaks{
      {{"H100 80GB HBM3", 989e12}, {"H200", 989e12}, {"A100", 312e12}}};
  for (const auto& [name, peak] : kPeaks) {
    if (gpu.find(name) != std::string::npos) return peak;
  }
  return 0;
}

std::string training_table_header() {
  return "| model | mixer | shape | tokens/s | ms a step | of the peak | memory, GiB | slowest "
         "parts "
         "|\n|---|---|---|---:|---:|---:|---:|---|\n";
}

std::string training_table_row(const nlohmann::json& m) {
  constexpr size_t kPartsShown = 4;
  std::string parts;
  const nlohmann::json& profile = m["profile"];
  for (size_t i = 0; i < std::min(kPartsShown, profile["parts"].size()); ++i) {
    const nlohmann::json& part = profile["parts"][i];
    parts += fmt::format("{}{} {:.0f} %", i ? ", " : "", part["name"].get<std::string>(),
                         100 * part["seconds"].get<double>() / profile["seconds"].get<double>());
  }
  const std::string recompute = m.value("recompute", "none");
  return fmt::format(
      "| {} | {} | B{} T{}{} | {:.0f} | {:.1f} | {} | {} | {} |\n", m["size"].get<std::string>(),
      mixer_label(m["mixer"], m.value("cell", "")), m["batch"].get<int64_t>(),
      m["steps"].get<int64_t>(), recompute == "none" ? std::string() : ", recompute " + recompute,
      m["tokens_per_second"].get<double>(), m["milliseconds"].get<double>(),
      m["share_of_peak"].is_null()
          ? ""
          : fmt::format("{:.1f} %", 100 * m["share_of_peak"].get<double>()),
      m["peak_gigabytes"].is_null() ? "" : fmt::format("{:.1f}", m["peak_gigabytes"].get<double>()),
      parts);
}

}  // namespace pararnn::bench
