#include "cli/tokenize.hpp"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "data/dataset.hpp"
#include "data/shard_folder.hpp"
#include "train/progress.hpp"

namespace pararnn::cli {
namespace {

constexpr int64_t kMegabyte = 1'000'000;

struct TokenizeArguments {
  std::string data, out;
  int64_t sample_megabytes = data::TokenizeOptions().sample_bytes / kMegabyte;
  data::TokenizeOptions options;
};

void tokenize(TokenizeArguments arguments) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  arguments.options.sample_bytes = arguments.sample_megabytes * kMegabyte;
  require(std::filesystem::exists(arguments.data), "--data: {} does not exist", arguments.data);

  train::Progress progress(stderr);
  progress.say(fmt::format("learning a vocabulary of {} from at most {} MB of {}",
                           arguments.options.vocabulary, arguments.sample_megabytes,
                           arguments.data));
  const auto begin = Clock::now();
  Clock::time_point encoding_begin;
  arguments.options.progress = [&](int64_t done, int64_t all) {
    if (done == 0) encoding_begin = Clock::now();
    if (done == 0 || !progress.due()) return;
    const double rate = static_cast<double>(done) / seconds_since(encoding_begin);
    progress.update(fmt::format("encoded {:.1f} of {:.1f} MB, {:.1f} MB/s, {} left",
                                static_cast<double>(done) * 1e-6, static_cast<double>(all) * 1e-6,
                                rate * 1e-6,
                                train::format_duration(static_cast<double>(all - done) / rate)));
  };
  data::write_shard_folder(arguments.data, arguments.out, arguments.options);

  const data::Dataset dataset = data::open_dataset(arguments.out);
  const auto tokens = static_cast<double>(dataset.training->size() + dataset.held_out->size());
  const auto bytes = static_cast<double>(dataset.training->bytes() + dataset.held_out->bytes());
  progress.say(fmt::format("{}; {:.2f} bytes a token; {}", dataset.description, bytes / tokens,
                           train::format_duration(seconds_since(begin))));
  progress.say(fmt::format("train on it with: pararnn train --data {}", arguments.out));
}

}  // namespace

void add_tokenize_command(CLI::App& program) {
  auto arguments = std::make_shared<TokenizeArguments>();
  CLI::App* command =
      program.add_subcommand("tokenize", "turn text into shards of tokens, to train on");
  command->footer(
      "Learns a vocabulary of pieces of words (SentencePiece, byte-pair encoding) from a sample of "
      "the text, encodes "
      "all of the text with it on every core, and writes the tokens as memory-mapped shards, "
      "training and held-out "
      "apart. Train on the result with pararnn train --data OUT. The encoding is lossless for any "
      "bytes. Nothing "
      "appears at OUT before everything is complete; an interrupted run leaves OUT.partial, which "
      "the next run clears.\n"
      "\n"
      "Example: pararnn tokenize --data books/ --vocabulary 16384 --out books.tokens\n");
  command
      ->add_option(
          "--data", arguments->data,
          "a text file, or a folder of text files: recursive; binary files and names that begin "
          "with a dot are skipped")
      ->required();
  command->add_option("--out", arguments->out, "the folder to make; must be new or empty")
      ->required();
  data::TokenizeOptions& options = arguments->options;
  command
      ->add_option("--vocabulary", options.vocabulary,
                   "size of the vocabulary, with the 256 bytes and 2 special tokens; up to 65536 a "
                   "token takes "
                   "2 bytes on disk, above it 4")
      ->capture_default_str()
      ->check(is_number(int64_t{300}, int64_t{1'000'000}));
  command
      ->add_option("--held-out", options.held_out_share,
                   "share to hold out for validation: of a folder whole files, chosen by a hash of "
                   "their paths, and where that comes to much more or less, files that fit, or "
                   "the end of one; of a single file its last part")
      ->capture_default_str()
      ->check(is_number(0.0, 0.99));
  command
      ->add_option(
          "--sample", arguments->sample_megabytes,
          "MB of training text, evenly spread, that the vocabulary is learned from; takes about "
          "20 times that in memory")
      ->capture_default_str()
      ->check(is_number(int64_t{1}, int64_t{100'000}));
  command->add_option("--threads", options.threads, "threads that encode; 0 for one on each core")
      ->capture_default_str()
      ->check(is_number(0, 4096));
  command->callback([arguments] { tokenize(*arguments); });
}

}  // namespace pararnn::cli
