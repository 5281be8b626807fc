#include "cli/bench.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "bench/cpu.hpp"
#include "bench/first_use.hpp"
#include "bench/generation.hpp"
#include "bench/gpu.hpp"
#include "bench/operators.hpp"
#include "bench/options.hpp"
#include "bench/report.hpp"
#include "bench/sequences.hpp"
#include "bench/train.hpp"
#include "bench/training_plot.hpp"
#include "cli/common_options.hpp"
#include "nn/presets.hpp"
#include "train/device.hpp"
#include "train/memory.hpp"

namespace pararnn::cli {
namespace {

using namespace bench;

// Left empty: what the device makes of it.
struct BenchArguments {
  BenchOptions options;
  std::vector<std::string> shapes;
  std::string device = "cpu", markdown_file, plot_file;
  std::vector<std::string> from_files;
};

constexpr const char* kFirstUse = "first-use";
constexpr const char* kSequences = "sequences";
constexpr const char* kOperators = "operators";
constexpr const char* kGenerate = "generate";
const std::vector<std::string> kCpuShapes = {"8x1024x512", "1x16384x64", "1x4096x8"};
const std::vector<std::string> kGpuShapes = {"32x2048x2048", "8x2048x2048", "1x65536x2048",
                                             "1x65536x256",  "1x2048x2048", "1x1048576x64"};
// For --part operators.
const std::vector<std::string> kOperatorShapes = {"32x2048x768", "32x2048x2048", "1x65536x768",
                                                  "8x2048x4096"};
// For --part sequences.
const std::vector<std::string> kCpuRows = {"1x8192x512", "1x16384x64"};
const std::vector<std::string> kGpuRows = {"1x65536x2048", "1x65536x256", "1x2097152x64"};

constexpr const char* kExplanation = R"(
Each result is validated as `pararnn check` does before it is timed. Times are
medians. Roof: the time in which a copy moves the same bytes, in the same run.
Regimes: forgetting (weights ±1, gate bias 0), memory (±1, -4), hard (±4, -4).

Baselines on the CPU, on float32 numbers:
  scalar loop      the plain loop, one thread, compiled with -O3
  vectorised loop  the same over channels by the compiler, with the C library's
                   vector functions and relaxed arithmetic, one thread
  loop of ops      a loop over steps of LibTorch operations with autograd, forward
                   and backward, measured once for each cell and shape
On a GPU the L2 cache is flushed before each call. Parts:
  scan    the forward and the backward pass, replayed from a CUDA graph
  module  the operator with autograd, launched by the host: B8 T2048 D2048 float32
  decode  one step, beside a copy of the same bytes
  length  B1 D2048 at 512 to 131072 steps, of the first cell: what --plot shows
Parts for either device, each by itself:
  first-use  of one cell, in this process: from the command to the first gradient;
             with PARARNN_CACHE_DIR naming an empty folder all is compiled, the
             next time nothing is
  sequences  one row, as one sequence and as many packed ones
  operators  on a GPU: what stands between the products of a language model
  generate   tokens a second of language models of 134M and 1.3B parameters (on a
             CPU the first) with random weights, of every --mixer, batch 1 and 64,
             after every --context, beside a copy's rate: what reading weights and
             states once a step allows is 1
Baselines there: the loop of ops, the same in a CUDA graph, cuDNN's dense layer,
attention, and SSD (Mamba2's linear recurrence) in operations.)";

BenchShape parse_shape(const std::string& text) {
  BenchShape shape{};
  int end = 0;
  const int count =
      std::sscanf(text.c_str(), "%ldx%ldx%ld%n", &shape.batch, &shape.steps, &shape.channels, &end);
  require(count == 3 && size_t(end) == text.size() &&
              std::min({shape.batch, shape.steps, shape.channels}) > 0,
          "the shape '{}' should be batch x steps x channels, as 8x1024x512", text);
  return shape;
}

/// What every report has, without a measurement.
nlohmann::json empty_report(bool on_gpu) {
  return {{"device", on_gpu ? "cuda" : "cpu"},
          {"machine", on_gpu ? describe_gpu() : describe_processor()},
          {"results", nlohmann::json::array()}};
}

nlohmann::json run(BenchArguments arguments) {
  const bool on_gpu = arguments.device == "cuda";
  train::find_device(arguments.device);  // throws Error if it is not there
  BenchOptions& options = arguments.options;
  const bool first_use = std::ranges::count(options.parts, kFirstUse) > 0;
  const bool sequences = std::ranges::count(options.parts, kSequences) > 0;
  const bool operators = std::ranges::count(options.parts, kOperators) > 0;
  const bool generation = std::ranges::count(options.parts, kGenerate) > 0;
  require(on_gpu || options.parts.empty() || first_use || sequences || generation,
          "on the CPU the only parts are {}, {} and {}; the others choose what --device cuda "
          "measures",
          kFirstUse, kSequences, kGenerate);
  for (const char* alone : {kSequences, kOperators, kGenerate}) {
    require(std::ranges::count(options.parts, alone) == 0 || options.parts.size() == 1,
            "--part {} is measured by itself", alone);
  }
  require(!first_use || (options.parts.size() == 1 && options.cells.size() == 1),
          "--part {} measures one cell, and nothing else in the same process", kFirstUse);
  if (arguments.shapes.empty()) {
    arguments.shapes = operators   ? kOperatorShapes
                       : sequences ? (on_gpu ? kGpuRows : kCpuRows)
                       : on_gpu    ? kGpuShapes
                                   : kCpuShapes;
  }
  if (options.dtype.empty()) options.dtype = on_gpu ? "bfloat16" : "float32";
  if (options.parts.empty()) options.parts = kGpuParts;
  const auto report_of = [&](const char* part, const nlohmann::json& measurements) {
    nlohmann::json report = empty_report(on_gpu);
    report["dtype"] = options.dtype;
    report[part] = measurements;
    return report;
  };
  if (first_use) {
    const nlohmann::json measurement =
        measure_first_use(options.cells[0], options.dtype, arguments.device, options.scan);
    print(first_use_table_header() + first_use_table_row(measurement));
    return report_of("first_use", nlohmann::json::array({measurement}));
  }
  for (const std::string& shape : arguments.shapes) options.shapes.push_back(parse_shape(shape));
  if (sequences) return report_of("sequences", measure_sequences(options, arguments.device));
  if (operators) return report_of("operators", measure_operators(options));
  if (generation) return report_of("generation", measure_generation(options, arguments.device));
  return on_gpu ? bench_on_gpu(options) : bench_on_cpu(options);
}

/// Of a report of steps of training alone, how fast they are and where their time goes.
std::string plot_of(const nlohmann::json& report) {
  const bool training_alone = report["results"].empty() && report.contains("training");
  return training_alone ? training_svg(report) : time_against_steps_svg(report);
}

struct TrainingArguments {
  std::vector<std::string> presets = {"134m"}, mixers = {nn::ModelConfig().mixer}, cells = {"gru"};
  std::vector<int64_t> lengths = {2048};
  std::string device = "auto", json_file, plot_file;
  int64_t vocabulary = 32000, tokens = 32 * 2048;
  int64_t batch = 0;  // 0: as many sequences as --tokens makes
  bool profile = false;
  TrainBench bench;
};

/// Calls visit(cell) for each cell that the model's layers run.
template <class Visit>
void for_each_cell_of(nn::ModelConfig& model, Visit visit) {
  nn::for_each_mixer(model, [&](std::string_view mixer, auto& options) {
    if (nn::has_mixer(model, mixer)) nn::for_each_cell(options, visit);
  });
}

/// What is to be measured: each size with each mixer, and where that runs a cell with each cell, at
/// each length. Throws Error if one of them is no model.
std::vector<TrainBench> training_benches(const TrainingArguments& arguments) {
  std::vector<TrainBench> benches;
  TrainBench bench = arguments.bench;
  const auto add_lengths = [&] {
    nn::validate(bench.model);
    for (const int64_t length : arguments.lengths) {
      bench.train.length = length;
      bench.train.batch =
          arguments.batch > 0 ? arguments.batch : std::max<int64_t>(arguments.tokens / length, 1);
      benches.push_back(bench);
    }
  };
  for (const std::string& preset : arguments.presets) {
    for (const std::string& mixer : arguments.mixers) {
      bench.name = preset;
      bench.model = nn::preset(preset, mixer);
      bench.model.vocabulary = arguments.vocabulary;
      bool runs_a_cell = false;
      for_each_cell_of(bench.model, [&](const std::string&) { runs_a_cell = true; });
      if (!runs_a_cell) add_lengths();
      for (const std::string& cell : arguments.cells) {
        if (!runs_a_cell) break;
        for_each_cell_of(bench.model, [&](std::string& of_layers) { of_layers = cell; });
        add_lengths();
      }
    }
  }
  return benches;
}

void bench_training(const TrainingArguments& arguments) {
  const torch::Device device = train::find_device(arguments.device);
  const std::vector<TrainBench> benches = training_benches(arguments);
  nlohmann::json report = empty_report(device.is_cuda());
  report["training"] = nlohmann::json::array();
  print(training_table_header());
  for (const TrainBench& bench : benches) {
    nlohmann::json measurement;
    try {
      train::run_within_memory(bench.model, bench.train, device, [&](const auto& recompute) {
        measurement = measure_training(bench, device, recompute);
      });
    } catch (const train::NotEnoughMemory& error) {
      if (benches.size() == 1) throw;
      fmt::print(stderr, "{}: {}\n", training_label(bench), error.what());
      continue;
    }
    print(training_table_row(measurement));
    report["training"].push_back(measurement);
    if (arguments.profile) print(measurement["profile"].dump(1) + "\n");
    if (!arguments.json_file.empty()) {
      about_option("--json", [&] { write_report(arguments.json_file, report); });
    }
  }
  require(!report["training"].empty(), "nothing was measured: there is too little memory for each");
  if (!arguments.plot_file.empty()) {
    about_option("--plot", [&] { write_file(arguments.plot_file, training_svg(report)); });
  }
}

void add_bench_train_command(CLI::App& bench) {
  auto arguments = std::make_shared<TrainingArguments>();
  train::TrainConfig& config = arguments->bench.train;
  // One batch again and again, at a learning rate that stays: the loss must fall.
  config.overfit = true;
  config.steps = std::int64_t{1} << 40;
  config.warmup = 0;
  config.learning_rate = 1e-4;
  config.precision = "bfloat16";
  CLI::App* command =
      bench.add_subcommand("train", "time steps of training language models on random tokens");
  command->footer(
      "Tells tokens a second, the share of the GPU's dense bfloat16 arithmetic (6 operations a "
      "parameter and token), the peak of its memory, and where the time goes. What does not fit "
      "into memory is said, and the others are measured.\n"
      "\n"
      "Examples: pararnn bench train --preset 134m,400m --cell gru,lstm_cifg --json train.json\n"
      "          pararnn bench train --mixer rnn rnn*3,rnn --length 2048,8192 --plot "
      "lengths.svg\n");
  const auto size = is_number(int64_t{1}, int64_t{1} << 40);
  command->add_option("--preset", arguments->presets, "sizes of models")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::IsMember(nn::preset_names()));
  command
      ->add_option("--mixer", arguments->mixers,
                   "mixers of the layers, with spaces between them; each one for all layers, or a "
                   "pattern as `pararnn train` takes it")
      ->capture_default_str()
      ->check(layer_pattern_validator());
  add_cell_option(*command, arguments->cells,
                  "cells, names or files; each in the place of those that mixers run");
  command->add_option("--vocabulary", arguments->vocabulary, "tokens that there are")
      ->capture_default_str()
      ->check(size);
  command->add_option("--length", arguments->lengths, "tokens in a sequence")
      ->delimiter(',')
      ->capture_default_str()
      ->check(size);
  command
      ->add_option("--tokens", arguments->tokens,
                   "tokens in a batch, of as many sequences as that makes, or one")
      ->capture_default_str()
      ->check(size);
  command->add_option("--batch", arguments->batch, "sequences in a batch, however long they are")
      ->check(size)
      ->excludes("--tokens");
  command
      ->add_option("--steps", arguments->bench.steps,
                   "steps that are timed, after as many, or 20, that are not")
      ->capture_default_str()
      ->check(size);
  add_precision_option(*command, config.precision);
  add_recompute_option(*command, config.recompute);
  add_plan_option(*command, config.plan);
  add_graph_option(*command, config.graph);
  add_device_option(*command, arguments->device);
  add_threads_option(*command);
  command->add_flag("--profile", arguments->profile, "show where the time goes, kernel by kernel");
  command->add_option("--json", arguments->json_file, "write the measurements to this file");
  command->add_option("--plot", arguments->plot_file,
                      "write a plot of where the time goes to this file, as SVG; above it, where "
                      "there are several lengths, tokens/s against length");
  command->callback([arguments] { bench_training(*arguments); });
}

}  // namespace

void add_bench_command(CLI::App& program) {
  auto arguments = std::make_shared<BenchArguments>();
  BenchOptions& options = arguments->options;
  options.cells = {"gru", "lstm"};
  options.mixers = {nn::ModelConfig().mixer};
  options.contexts = {16};
  for (const Regime& regime : kRegimes) options.regimes.emplace_back(regime.name);
  CLI::App* command = program.add_subcommand(
      "bench", "Time the engine against the step-by-step loops on this machine");
  command->footer(kExplanation);
  command->add_option("--device", arguments->device, "where to run")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  add_cell_option(*command, options.cells, "cells, names or files");
  command
      ->add_option(
          "--shape", arguments->shapes,
          fmt::format("shapes, batch x steps x channels; on a GPU {}", fmt::join(kGpuShapes, ",")))
      ->delimiter(',')
      ->default_str(fmt::format("{}", fmt::join(kCpuShapes, ",")));
  command->add_option("--regime", options.regimes, "regimes")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::IsMember(options.regimes));
  command->add_option("--dtype", options.dtype, "dtype of the tensors; on a GPU bfloat16")
      ->default_str("float32")
      ->check(CLI::IsMember({"float16", "bfloat16", "float32", "float64"}));
  add_scan_options(*command, options.scan);
  std::vector<std::string> parts = kGpuParts;
  const std::vector<const char*> others = {kFirstUse, kSequences, kOperators, kGenerate};
  parts.insert(parts.end(), others.begin(), others.end());
  command
      ->add_option("--part", options.parts,
                   fmt::format("what to measure on a GPU, or one of {}", fmt::join(others, ", ")))
      ->delimiter(',')
      ->default_str(fmt::format("{}", fmt::join(kGpuParts, ",")))
      ->check(CLI::IsMember(parts));
  command
      ->add_option(
          "--mixer", options.mixers,
          "mixers of the models of --part generate, with spaces between them; each one for "
          "all layers, or a pattern as `pararnn train` takes it")
      ->capture_default_str()
      ->check(layer_pattern_validator());
  command
      ->add_option("--context", options.contexts,
                   "tokens that the models of --part generate have read before those timed")
      ->delimiter(',')
      ->capture_default_str()
      ->check(is_number(int64_t{1}, int64_t{1} << 30));
  command->add_flag_callback(
      "--no-baselines", [arguments] { arguments->options.baselines = false; },
      "time the engine alone; the baselines take most of the time");
  add_threads_option(*command);
  command->add_option("--json", options.json_file, "write the measurements to this file");
  command->add_option("--markdown", arguments->markdown_file, "write the tables to this file");
  command->add_option("--plot", arguments->plot_file,
                      "write a plot of time against steps on a GPU to this file, as SVG; --from "
                      "reports of `bench train`, of how fast and where the time goes");
  command
      ->add_option("--from", arguments->from_files,
                   "measure nothing; take what earlier --json have written, on one machine")
      ->delimiter(',');
  add_bench_train_command(*command);
  command->callback([command, arguments] {
    if (!command->get_subcommands().empty()) return;
    const nlohmann::json report =
        arguments->from_files.empty()
            ? run(*arguments)
            : about_option("--from", [&] { return read_reports(arguments->from_files); });
    const std::string &json_file = arguments->options.json_file,
                      &markdown_file = arguments->markdown_file, &plot_file = arguments->plot_file;
    const auto write = [](const char* option, const std::string& file, const std::string& text) {
      about_option(option, [&] { write_file(file, text); });
    };
    if (!json_file.empty()) about_option("--json", [&] { write_report(json_file, report); });
    if (!markdown_file.empty())
      write("--markdown", markdown_file, markdown_of(report, markdown_file, plot_file));
    if (!plot_file.empty()) write("--plot", plot_file, plot_of(report));
    const std::vector<std::string> wrong = wrong_results(report);
    require(wrong.empty(), "{}", fmt::join(wrong, "; "));
  });
}

}  // namespace pararnn::cli
