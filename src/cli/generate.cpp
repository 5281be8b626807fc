#include "cli/generate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "cli/common_options.hpp"
#include "nn/generate.hpp"
#include "train/config.hpp"
#include "train/device.hpp"
#include "train/memory.hpp"
#include "train/trained_model.hpp"

namespace pararnn::cli {
namespace {

struct GenerateArguments {
  ModelOption model;
  std::string prompt, prompts_file, device = "auto", precision = "auto";
  int64_t tokens = 500, batch = 1;
  ScanOptions scan;
  nn::SamplingOptions sampling{.temperature = 0.8, .top_p = 0.95};
};

/// The prompts, each as often as it is to be continued.
std::vector<std::string> prompts_of(const GenerateArguments& arguments) {
  std::vector<std::string> prompts;
  const auto add = [&](const std::string& prompt) {
    prompts.insert(prompts.end(), static_cast<size_t>(arguments.batch), prompt);
  };
  if (arguments.prompts_file.empty()) {
    add(arguments.prompt);
    return prompts;
  }
  std::ifstream lines(arguments.prompts_file);
  require(lines.good(), "--prompts: cannot read {}", arguments.prompts_file);
  for (std::string line; std::getline(lines, line);) add(line);
  require(!prompts.empty(), "--prompts: {} has no lines", arguments.prompts_file);
  return prompts;
}

void write(const std::string& text) {
  const bool written =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  require(written, "cannot write the text to standard output");
}

/// One text as it is drawn, or several as lines of JSON, each when it ends.
class TextWriter {
 public:
  TextWriter(const GenerateArguments& arguments, const data::Tokenizer& tokenizer,
             const std::vector<std::string>& prompts)
      : arguments_(arguments), tokenizer_(tokenizer), counts_(prompts.size()) {
    if (prompts.size() == 1) {
      write(prompts[0]);
    } else {
      for (const std::string& prompt : prompts) lines_.push_back({{"text", prompt}});
    }
  }

  /// Whether the row goes on.
  bool add(int64_t row, int32_t token) {
    const std::string text = tokenizer_.decode({&token, 1});
    const bool ended = token == tokenizer_.end_of_document();
    const int64_t count = ++counts_[size_t(row)];
    const bool goes_on = !ended && count < arguments_.tokens;
    if (lines_.empty()) {
      write(text);
    } else {
      lines_[size_t(row)]["text"].get_ref<std::string&>() += text;
    }
    if (!goes_on) end(row, ended);
    return goes_on;
  }

  /// Ends a row, which the model has ended or not.
  void end(int64_t row, bool ended) {
    if (lines_.empty()) return write("\n");
    nlohmann::json& line = lines_[size_t(row)];
    line["row"] = row;
    line["seed"] = arguments_.sampling.seed + uint64_t(row);
    line["tokens"] = counts_[size_t(row)];
    line["ended"] = ended;
    // Bytes that are no UTF-8 become U+FFFD.
    write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }

  int64_t tokens() const { return std::accumulate(counts_.begin(), counts_.end(), int64_t{0}); }

 private:
  const GenerateArguments& arguments_;
  const data::Tokenizer& tokenizer_;
  std::vector<int64_t> counts_;
  std::vector<nlohmann::json> lines_;  // none where there is one text
};

void generate(const GenerateArguments& arguments) {
  const torch::Device device = train::find_device(arguments.device);
  const std::string precision = arguments.precision != "auto" ? arguments.precision
                                : device.is_cuda()            ? "bfloat16"
                                                              : "float32";
  const torch::ScalarType dtype = train::precision_dtype(precision);
  const std::vector<std::string> texts = prompts_of(arguments);
  train::TrainedModel trained = about_option("--model", [&] {
    return train::load_trained_model(arguments.model.path, arguments.model.trust_cell, device);
  });
  trained.model->to_precision(dtype);
  trained.model->set_scan_options(arguments.scan);
  const data::Tokenizer& tokenizer = *trained.tokenizer;

  std::vector<std::vector<int32_t>> prompts;
  size_t longest = 0, prompt_tokens = 0;
  for (const std::string& text : texts) {
    // The model has learned that a text begins after the end of another.
    std::vector<int32_t> prompt{tokenizer.end_of_document()};
    const std::vector<int32_t> tokens = tokenizer.encode(text);
    prompt.insert(prompt.end(), tokens.begin(), tokens.end());
    longest = std::max(longest, prompt.size());
    prompt_tokens += prompt.size();
    prompts.push_back(std::move(prompt));
  }
  TextWriter writer(arguments, tokenizer, texts);
  nn::GenerationTimes times;
  train::run_within_memory(
      train::generation_memory(trained.model->config(), dtype, int64_t(longest), std::ssize(texts),
                               arguments.tokens, device.type()),
      device, [&] {
        times = nn::generate(trained.model, prompts, arguments.tokens, arguments.sampling,
                             [&](int64_t row, int32_t token) { return writer.add(row, token); });
      });
  if (arguments.tokens == 0) {
    for (size_t row = 0; row < texts.size(); ++row) writer.end(int64_t(row), false);
  }
  const double speed = times.seconds > 0 ? double(times.tokens) / times.seconds : 0;
  const double step = times.steps > 0 ? 1e3 * times.seconds / double(times.steps) : 0;
  fmt::print(
      stderr, "{} tokens at {:.0f} tokens/s{}, after {} of {} tokens in {:.0f} ms\n",
      writer.tokens(), speed,
      texts.size() > 1 ? fmt::format(", {:.3g} ms a step of {} rows", step, texts.size()) : "",
      texts.size() > 1 ? "prompts" : "a prompt", prompt_tokens, 1e3 * times.prompt_seconds);
}

}  // namespace

void add_generate_command(CLI::App& program) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = program.add_subcommand("generate", "write text with a trained model");
  command->footer(
      "Writes text with a trained model, token by token as it is drawn, until the model ends the "
      "document. The cost of a "
      "token grows with the length of the text in layers of attention alone. The same seed gives "
      "the same text.\n"
      "\n"
      "Several texts, of --batch or --prompts, go on together, and come as lines of JSON, each "
      "when "
      "it ends: text, row, seed, tokens, and whether the model ended it. Row i is what --seed plus "
      "i "
      "gives alone, but for rounding.\n"
      "\n"
      "Example: pararnn generate --model run --prompt 'template <' --tokens 1000\n");
  add_model_option(*command, arguments->model);
  auto* prompt = command->add_option("--prompt", arguments->prompt, "the beginning of the text");
  command
      ->add_option("--prompts", arguments->prompts_file,
                   "a file of prompts, one a line; a text for each")
      ->excludes(prompt);
  command->add_option("--batch", arguments->batch, "texts for each prompt")
      ->capture_default_str()
      ->check(is_number(int64_t{1}, int64_t{1} << 20));
  command->add_option("--tokens", arguments->tokens, "most tokens to write, of each text")
      ->capture_default_str()
      ->check(is_number(int64_t{0}, int64_t{1} << 40));
  nn::SamplingOptions& sampling = arguments->sampling;
  command
      ->add_option(
          "--temperature", sampling.temperature,
          "below 1 likely tokens become likelier, above 1 less so; 0: always the likeliest")
      ->capture_default_str()
      ->check(is_number(0.0));
  command
      ->add_option(
          "--top-p", sampling.top_p,
          "draw only from the likeliest tokens that together have this probability; 1: from all")
      ->capture_default_str()
      ->check(is_number(kAboveZero, 1.0));
  command->add_option("--seed", sampling.seed, "of the drawing")->capture_default_str();
  command
      ->add_option("--precision", arguments->precision,
                   "arithmetic of the matrix products; auto: bfloat16 on a GPU, float32 on a CPU")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}));
  add_scan_options(*command, arguments->scan);
  add_device_option(*command, arguments->device);
  add_threads_option(*command);
  command->callback([arguments] { generate(*arguments); });
}

}  // namespace pararnn::cli
