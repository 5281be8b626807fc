#include "cli/generate.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
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
  std::string prompt, device = "auto", precision = "float32";
  int64_t tokens = 500;
  ScanOptions scan;
  nn::SamplingOptions sampling{.temperature = 0.8, .top_p = 0.95};
};

void generate(const GenerateArguments& arguments) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration time) {
    return std::chrono::duration<double>(time).count();
  };
  const torch::Device device = train::find_device(arguments.device);
  train::TrainedModel trained = about_option("--model", [&] {
    return train::load_trained_model(arguments.model.path, arguments.model.trust_cell, device);
  });
  trained.model->to_precision(train::precision_dtype(arguments.precision));
  trained.model->set_scan_options(arguments.scan);
  const data::Tokenizer& tokenizer = *trained.tokenizer;

  // The model has learned that a text begins after the end of another.
  std::vector<int32_t> prompt{tokenizer.end_of_document()};
  for (const int32_t token : tokenizer.encode(arguments.prompt)) prompt.push_back(token);
  fmt::print("{}", arguments.prompt);
  std::fflush(stdout);

  const auto start = Clock::now();
  auto first = start;
  int64_t count = 0;
  const auto write_token = [&](int32_t token) {
    if (count++ == 0) first = Clock::now();
    const std::string text = tokenizer.decode({&token, 1});
    const bool written =
        std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    require(written, "cannot write the text to standard output");
    return token != tokenizer.end_of_document();
  };
  train::run_within_memory(
      train::generation_memory(trained.model->config(), train::precision_dtype(arguments.precision),
                               std::ssize(prompt)),
      device, [&] {
        nn::generate(trained.model, prompt, arguments.tokens, arguments.sampling, write_token);
      });
  fmt::print("\n");
  const double speed =
      count > 1 ? static_cast<double>(count - 1) / seconds(Clock::now() - first) : 0;
  fmt::print(stderr, "{} tokens at {:.0f} tokens/s, after a prompt of {} tokens in {:.0f} ms\n",
             count, speed, prompt.size(), 1e3 * seconds(first - start));
}

}  // namespace

void add_generate_command(CLI::App& program) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* command = program.add_subcommand("generate", "write text with a trained model");
  command->footer(
      "Writes text with a trained model, token by token as it is drawn, until the model ends the "
      "document. The cost of a "
      "token does not depend on the length of the text. The same seed gives the same text.\n"
      "\n"
      "Example: pararnn generate --model run --prompt 'template <' --tokens 1000\n");
  add_model_option(*command, arguments->model);
  command->add_option("--prompt", arguments->prompt, "the beginning of the text");
  command->add_option("--tokens", arguments->tokens, "most tokens to write")
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
  add_precision_option(*command, arguments->precision);
  add_scan_options(*command, arguments->scan);
  add_device_option(*command, arguments->device);
  add_threads_option(*command);
  command->callback([arguments] { generate(*arguments); });
}

}  // namespace pararnn::cli
