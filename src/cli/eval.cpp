#include "cli/eval.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "cli/common_options.hpp"
#include "data/baselines.hpp"
#include "data/dataset.hpp"
#include "train/checkpoint.hpp"
#include "train/device.hpp"
#include "train/evaluate.hpp"
#include "train/memory.hpp"
#include "train/run_state.hpp"
#include "train/trained_model.hpp"

namespace pararnn::cli {
namespace {

struct EvalArguments {
  ModelOption model;
  std::string data, json, device = "auto", precision = "float32";
  std::vector<int64_t> contexts = {0};
  bool baselines = false;
  ScanOptions scan;
  train::EvaluationOptions options;
};

/// A text, tokenized with another tokenizer, in memory.
class TokenizedText : public data::TokenSource {
 public:
  TokenizedText(const data::TokenSource& text, const data::Tokenizer& text_tokenizer,
                const data::Tokenizer& tokenizer)
      : name_(text.name()), bytes_(text.bytes()) {
    std::string document;
    const auto append_document = [&] {
      if (document.empty()) return;
      if (!tokens_.empty()) tokens_.push_back(tokenizer.end_of_document());
      const std::vector<int32_t> tokens = tokenizer.encode(document);
      tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
      document.clear();
    };
    data::visit_text(text, text_tokenizer, text.size(), [&](std::string_view part, bool continues) {
      if (!continues) append_document();
      document += part;
    });
    append_document();
  }

  int64_t size() const override { return std::ssize(tokens_); }
  int64_t bytes() const override { return bytes_; }
  std::string name() const override { return name_; }

 private:
  void read_checked(int64_t begin, std::span<int32_t> out) const override {
    std::copy_n(tokens_.begin() + begin, out.size(), out.begin());
  }

  std::string name_;
  int64_t bytes_;
  std::vector<int32_t> tokens_;
};

/// What --data names, all of it to be evaluated; without it the data of the run that the model
/// comes from.
data::Dataset open_data(const EvalArguments& arguments) {
  if (!arguments.data.empty()) {
    data::Dataset dataset = data::open_dataset(arguments.data, {.held_out_share = 0});
    dataset.held_out = dataset.training;
    return dataset;
  }
  const train::TrainConfig run =
      train::load_run_state(train::find_checkpoint(arguments.model.path)).options;
  return data::open_dataset(run.data, {.held_out_share = run.held_out});
}

double tokens_per_second(const train::Score& score) {
  return static_cast<double>(score.tokens) / score.seconds;
}

void print_sentence(const std::string& text, const train::Score& score) {
  fmt::print(
      "{}: {:.4f} bits per byte, perplexity {:.3f}, {} tokens that stand for {} bytes, "
      "{:.0f} tokens/s\n",
      text, score.bits_per_byte(), score.perplexity(), score.tokens, score.bytes,
      tokens_per_second(score));
}

void print_table_head(const std::string& text) {
  fmt::print("{}\n{:>10} {:>13} {:>11} {:>11} {:>10}\n", text, "context", "bits per byte",
             "perplexity", "tokens", "tokens/s");
}

void print_table_row(int64_t context, const train::Score& score) {
  fmt::print("{:>10} {:>13.4f} {:>11.3f} {:>11} {:>10.0f}\n", context, score.bits_per_byte(),
             score.perplexity(), score.tokens, tokens_per_second(score));
  std::fflush(stdout);
}

nlohmann::json to_json(int64_t context, const train::Score& score) {
  return {{"context", context},
          {"loss", score.loss()},
          {"bits_per_byte", score.bits_per_byte()},
          {"perplexity", score.perplexity()},
          {"tokens", score.tokens},
          {"bytes", score.bytes},
          {"seconds", score.seconds}};
}

/// The text under the model, read in windows of each context in turn; prints and, with --json,
/// writes what that gives.
void evaluate_contexts(const EvalArguments& arguments, train::TrainedModel& trained,
                       const data::TokenSource& text, const torch::Device& device) {
  std::vector<train::EvaluationOptions> all;
  for (const int64_t context : arguments.contexts) {
    all.push_back(arguments.options);
    all.back().context = context > 0 ? context : arguments.options.length;
  }
  const auto need = [&](const train::EvaluationOptions& options) {
    return train::evaluation_memory(trained.model->config(), options,
                                    train::precision_dtype(arguments.precision), text.size(),
                                    device.type());
  };
  // Before the first begins, which may take hours.
  for (const train::EvaluationOptions& options : all) train::require_memory(need(options), device);
  nlohmann::json scores = nlohmann::json::array();
  if (all.size() > 1) print_table_head(text.name());
  for (const train::EvaluationOptions& options : all) {
    train::Score score;
    train::run_within_memory(need(options), device, [&] {
      score = train::evaluate(trained.model, text, *trained.tokenizer, options);
    });
    scores.push_back(to_json(options.context, score));
    if (all.size() > 1) {
      print_table_row(options.context, score);
    } else {
      print_sentence(text.name(), score);
    }
  }
  const int64_t longest = std::ranges::max(arguments.contexts);
  if (longest > text.size() - 1) {
    fmt::print("{} has {} tokens: no context is longer\n", text.name(), text.size());
  }
  if (arguments.json.empty()) return;
  const nlohmann::json report{
      {"model", arguments.model.path}, {"text", text.name()}, {"scores", scores}};
  // Names of files may be any bytes.
  const std::string json =
      report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  about_option("--json", [&] { write_file(arguments.json, json); });
}

void evaluate(const EvalArguments& arguments) {
  const torch::Device device = train::find_device(arguments.device);
  train::TrainedModel trained = about_option("--model", [&] {
    return train::load_trained_model(arguments.model.path, arguments.model.trust_cell, device);
  });
  trained.model->to_precision(train::precision_dtype(arguments.precision));
  trained.model->set_scan_options(arguments.scan);
  const data::Tokenizer& tokenizer = *trained.tokenizer;
  const data::Dataset dataset = about_option("--data", [&] { return open_data(arguments); });
  std::shared_ptr<const data::TokenSource> text = dataset.held_out;
  if (dataset.tokenizer->name() != tokenizer.name() ||
      dataset.tokenizer->model() != tokenizer.model()) {
    text = std::make_shared<TokenizedText>(*text, *dataset.tokenizer, tokenizer);
  }
  evaluate_contexts(arguments, trained, *text, device);
  if (!arguments.baselines) return;
  for (const data::Baseline& baseline : data::measure_baselines(dataset)) {
    fmt::print("{}: {:.4f} bits per byte\n", baseline.name, baseline.bits_per_byte);
  }
}

}  // namespace

void add_eval_command(CLI::App& program) {
  auto arguments = std::make_shared<EvalArguments>();
  CLI::App* command = program.add_subcommand("eval", "measure how well a model predicts a text");
  command->footer(
      "Measures how well a trained model predicts a text: bits per byte of the text, which can be "
      "compared between "
      "tokenizers; perplexity per token; and the speed. The text is cut into windows of --context "
      "tokens, and each is "
      "read from an empty state. With several --context, one after the other, they make a table.\n"
      "\n"
      "Examples: pararnn eval --model run\n"
      "          pararnn eval --model run --data other.txt --context 65536\n"
      "          pararnn eval --model run --context 256,4096,65536 --json lengths.json\n");
  add_model_option(*command, arguments->model);
  command->add_option(
      "--data", arguments->data,
      "the text, as for train, and all of it; without this option the held-out text of the run");
  const auto add_size = [&](const char* name, int64_t& value, const char* meaning, int64_t least) {
    command->add_option(name, value, meaning)
        ->capture_default_str()
        ->check(is_number(least, int64_t{1} << 40));
  };
  train::EvaluationOptions& options = arguments->options;
  command
      ->add_option(
          "--context", arguments->contexts,
          "tokens in a window, over which the state is carried on; 0: as many as --length; "
          "several with commas between them")
      ->delimiter(',')
      ->capture_default_str()
      ->check(is_number(int64_t{0}, int64_t{1} << 40));
  add_size("--length", options.length, "tokens read at a time, which bounds the memory", 1);
  add_size("--batch", options.batch, "windows read side by side", 1);
  add_size("--tokens", options.tokens,
           "about how many tokens to predict, in windows spread evenly; 0: all", 0);
  command->add_flag("--documents", options.documents,
                    "begin with an empty state at each token that ends a document, as train does "
                    "with this option");
  command
      ->add_flag("--baselines", arguments->baselines,
                 "also the same text under models that count bytes, and under gzip; they learn "
                 "from the run's "
                 "training text")
      ->excludes("--data");
  command->add_option("--json", arguments->json, "a file for all the figures");
  add_precision_option(*command, arguments->precision);
  add_scan_options(*command, arguments->scan);
  add_device_option(*command, arguments->device);
  add_threads_option(*command);
  command->callback([arguments] { evaluate(*arguments); });
}

}  // namespace pararnn::cli
