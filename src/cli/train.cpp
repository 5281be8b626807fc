#include "cli/train.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "cli/common_options.hpp"
#include "cli/dry_run.hpp"
#include "cli/usage_errors.hpp"
#include "data/dataset.hpp"
#include "nn/config.hpp"
#include "nn/model_files.hpp"
#include "nn/presets.hpp"
#include "train/checkpoint.hpp"
#include "train/device.hpp"
#include "train/memory.hpp"
#include "train/presets.hpp"
#include "train/progress.hpp"
#include "train/run_state.hpp"
#include "train/schedule.hpp"
#include "train/trainer.hpp"
#include "train/world.hpp"

namespace pararnn::cli {
namespace {

namespace fs = std::filesystem;

struct TrainArguments {
  std::string out = "run";
  std::string resume;
  std::string device = "auto";
  std::string preset;  // empty: none
  DryRunOptions dry_run;
  bool overwrite = false, trust_cell = false, replace_cell = false, profile = false;
  train::TrainConfig train;
  nn::ModelConfig model;
};

/// `stored`, with the values of `given` where the option was given.
nlohmann::json merge_given(const CLI::App& command, nlohmann::json stored,
                           const nlohmann::json& given) {
  for (auto& [key, value] : stored.items()) {
    const CLI::Option* option = command.get_option_no_throw(train::option_name(key));
    if (option != nullptr && option->count() > 0) value = given.at(key);
  }
  return stored;
}
nn::ModelConfig merge_given(const CLI::App& command, nn::ModelConfig stored,
                            const nn::ModelConfig& given) {
  std::map<std::string_view, nlohmann::json> values;
  const auto keep = [&](std::string_view, const auto& value, const nn::Option& o) {
    if (!o.flag.empty() && command.count(std::string(o.flag)) > 0) values[o.flag] = value;
  };
  nn::for_each_option(given, keep);
  // Those of all mixers: which ones the model has, `stored` may say.
  nn::for_each_mixer(
      given, [&](std::string_view, const auto& options) { nn::for_each_option(options, keep); });
  nn::for_each_used_option(stored, [&](std::string_view, auto& value, const nn::Option& o) {
    if (values.contains(o.flag)) values[o.flag].get_to(value);
  });
  return stored;
}

/// What a preset says, with the values of `given` where the option was given.
nn::ModelConfig merge_preset(const CLI::App& command, const std::string& preset,
                             const nn::ModelConfig& given) {
  nn::ModelConfig model = merge_given(command, nn::preset(preset, given.mixer), given);
  if (command.count("--mlp-width") == 0) {
    nn::validate(model, nn::CalledBy::kFlag);
    model.mlp_width = nn::preset_mlp_width(model);
  }
  return model;
}
train::TrainConfig merge_preset(const CLI::App& command, const std::string& preset,
                                const train::TrainConfig& given) {
  return train::train_config_from_json(
      merge_given(command, to_json(train::with_preset(given, preset)), to_json(given)));
}

/// A run that goes on has its own sizes: throws Error if they are not those of a preset that is
/// given again, but for options that are given too.
void require_preset(const CLI::App& command, const std::string& preset,
                    const nn::ModelConfig& model) {
  const nn::ModelConfig wanted = merge_given(command, nn::preset(preset, model.mixer), model);
  require(wanted.width == model.width && wanted.layers == model.layers,
          "--preset {} is {} layers of {} channels, but the run to resume was started with {} of "
          "{}: leave the option out, or start a new run",
          preset, wanted.layers, wanted.width, model.layers, model.width);
}

/// Throws Error if an option was given of a mixer that the model does not have.
void require_used(const CLI::App& command, const nn::ModelConfig& model) {
  nn::for_each_mixer(model, [&](std::string_view mixer, const auto& options) {
    if (nn::has_mixer(model, mixer)) return;
    nn::for_each_option(options, [&](std::string_view, const auto&, const nn::Option& option) {
      require(command.count(std::string(option.flag)) == 0,
              "{} is an option of the mixer {}, and --mixer {} has no layer of it", option.flag,
              mixer, model.mixer);
    });
  });
}

/// The checkpoint that --resume means, or an empty path if the run has none yet.
fs::path checkpoint_to_resume(const TrainArguments& arguments) {
  if (arguments.resume.empty()) {
    const auto checkpoints = train::list_checkpoints(arguments.out);
    return checkpoints.empty() ? fs::path() : checkpoints.back();
  }
  // Either run/step-00000100 or, since the run is known, step-00000100.
  const bool bare = !fs::path(arguments.resume).has_parent_path();
  const fs::path checkpoint = fs::weakly_canonical(bare ? arguments.out / fs::path(arguments.resume)
                                                        : fs::path(arguments.resume));
  require(fs::is_directory(checkpoint) && fs::equivalent(checkpoint.parent_path(), arguments.out),
          "--resume: {} is no checkpoint of the run {}, which --out names", arguments.resume,
          arguments.out);
  return fs::path(arguments.out) / checkpoint.filename();
}

/// Trains on a dataset, and returns the number of the signal that stopped it, or 0. The rank that
/// writes holds the lock of the run, which is taken here where the run is a new one.
int train_on(const data::Dataset& dataset, const TrainArguments& arguments,
             const std::shared_ptr<train::World>& world, std::optional<data::FolderLock>& lock,
             const fs::path& checkpoint, const torch::Device& device,
             const nn::RecomputePlan& recompute) {
  train::Trainer trainer(arguments.train, arguments.model, dataset, arguments.out, device, stdout,
                         world, recompute);
  if (!lock && world->is_writer())
    lock.emplace(train::create_run(arguments.out, arguments.overwrite));

  int64_t parameters = 0;
  for (const torch::Tensor& parameter : trainer.model()->parameters())
    parameters += parameter.numel();
  train::Progress(stdout).say(
      fmt::format("data: {}\nmodel: {} parameters, {} with {} channels\nrun: {}\ndevice: {}",
                  dataset.description, parameters, nn::describe_layers(arguments.model),
                  arguments.model.width, arguments.out, train::describe(device)));
  if (recompute != nn::RecomputePlan{}) {
    train::Progress(stdout).say("recompute: " + train::describe(recompute, arguments.model.layers));
  }
  if (!checkpoint.empty()) trainer.restore(checkpoint, arguments.replace_cell);
  if (arguments.profile) trainer.profile();
  return trainer.run();
}

data::Dataset open_data(const train::TrainConfig& config) {
  return about_option("--data", [&] {
    return data::open_dataset(config.data, {.held_out_share = config.held_out});
  });
}

/// Throws Error if options do not go together.
void require_valid(const CLI::App& command, const TrainArguments& arguments) {
  require(command.count("--decay") == 0 || arguments.train.schedule == "wsd",
          "--decay is the end of --schedule wsd, but the schedule is {}: give both or neither",
          arguments.train.schedule);
  train::require_valid(arguments.train);
  nn::validate(arguments.model, nn::CalledBy::kFlag);
  require_used(command, arguments.model);
}

/// Says what a run would take.
void reckon(const CLI::App& command, TrainArguments arguments) {
  const DryRunOptions& options = arguments.dry_run;
  if (arguments.train.steps == 0 && arguments.train.minutes == 0) arguments.train.steps = 1;
  if (!arguments.preset.empty()) {
    arguments.train = merge_preset(command, arguments.preset, arguments.train);
    arguments.model = merge_preset(command, arguments.preset, arguments.model);
  }
  arguments.model.vocabulary = arguments.train.data.empty()
                                   ? options.vocabulary
                                   : open_data(arguments.train).tokenizer->vocabulary_size();
  require_valid(command, arguments);
  const nlohmann::json report =
      dry_run(arguments.model, arguments.train, arguments.device, options.memory);
  fmt::print("{}", describe_dry_run(report));
  if (!options.json.empty())
    about_option("--json", [&] { write_file(options.json, report.dump(2) + "\n"); });
}

/// Trains, and returns the program's exit status.
int train_model(const CLI::App& command, TrainArguments arguments) {
  std::signal(SIGPIPE, SIG_IGN);  // a pipe that breaks is an error of the write, not the end
  const torch::Device device = train::find_device(arguments.device);
  const bool resume = command.count("--resume") > 0;
  const auto world = std::make_shared<train::World>();
  std::optional<data::FolderLock> lock;  // of the run, to the end
  if (resume && world->is_writer()) lock.emplace(train::open_run(arguments.out));
  const fs::path checkpoint = resume ? checkpoint_to_resume(arguments) : fs::path();
  if (!checkpoint.empty()) {
    train::verify_checkpoint(checkpoint, /*manifest_needed=*/true);
    const nn::ModelConfig stored_model = nn::load_model_config(checkpoint, arguments.trust_cell);
    arguments.train = train::train_config_from_json(merge_given(
        command, to_json(train::load_run_state(checkpoint).options), to_json(arguments.train)));
    arguments.model = merge_given(command, stored_model, arguments.model);
    if (!arguments.preset.empty()) require_preset(command, arguments.preset, arguments.model);
  } else {
    if (resume) {
      train::Progress(stdout).say(
          fmt::format("{} has no checkpoint yet: starting from step 0", arguments.out));
    }
    if (!arguments.preset.empty()) {
      arguments.train = merge_preset(command, arguments.preset, arguments.train);
      arguments.model = merge_preset(command, arguments.preset, arguments.model);
    }
  }
  require(!arguments.train.data.empty(), "nothing says what to train on: give --data");
  const data::Dataset dataset = open_data(arguments.train);
  arguments.model.vocabulary = dataset.tokenizer->vocabulary_size();
  require_valid(command, arguments);
  if (!device.is_cpu() && !checkpoint.empty())  // which is read there
    train::require_memory(train::model_memory(arguments.model), torch::kCPU);
  int signal = 0;
  train::run_within_memory(
      arguments.model, arguments.train, device, [&](const nn::RecomputePlan& recompute) {
        signal = train_on(dataset, arguments, world, lock, checkpoint, device, recompute);
      });
  return signal == 0 ? 0 : 128 + signal;
}

/// Takes true or false, and what CLI11 takes for them.
CLI::Validator truth_validator() {
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        bool value = false;
        if (CLI::detail::lexical_cast(text, value)) return "";
        return fmt::format("must be true or false, not {}", text);
      },
      "");
}

/// An option for each of `options` that has a flag.
template <class Options>
void add_options(CLI::App& command, Options& options, const std::string& group) {
  nn::for_each_option(options, [&](std::string_view key, auto& value, const nn::Option& option) {
    if (option.flag.empty()) return;
    using Value = std::remove_reference_t<decltype(value)>;
    const std::string flag(option.flag), meaning(option.meaning);
    if constexpr (std::is_same_v<Value, std::string>) {
      if (option.is_cell) {
        add_cell_option(command, value, meaning)->group(group);
        return;
      }
    }
    CLI::Option* added =
        command.add_option(flag, value, meaning)->capture_default_str()->group(group);
    if constexpr (std::is_same_v<Value, int64_t>) {
      added->check(is_number(static_cast<int64_t>(option.least), nn::kLargestSize));
    } else if constexpr (std::is_same_v<Value, double>) {
      added->check(is_number(option.least));
    } else if constexpr (std::is_same_v<Value, bool>) {
      added->default_str(value ? "true" : "false")->check(truth_validator());
    } else if (key == "mixer") {
      added->check(layer_pattern_validator());
    }
  });
}

/// Takes a name of nn::preset_names.
CLI::Validator preset_validator() {
  return CLI::Validator(
      [](const std::string& name) -> std::string {
        const std::vector<std::string> names = nn::preset_names();
        if (std::ranges::count(names, name) > 0) return "";
        const std::string meant = nearest(name, names);
        return fmt::format("there is no preset {}: there are {}{}", name, fmt::join(names, ", "),
                           meant.empty() ? "" : fmt::format("; did you mean {}?", meant));
      },
      "");
}

/// --dry-run, and what goes with it alone.
void add_dry_run_options(CLI::App& command, DryRunOptions& options) {
  command
      .add_flag("--dry-run", options.asked_for,
                "train nothing, and write nothing: tell the parameters by part, the operations a "
                "token, and by --recompute the memory and the largest batch that fits")
      ->configurable(false)
      ->excludes("--resume");
  const auto add = [&](const char* name, auto& value, const char* meaning) {
    return command.add_option(name, value, meaning)->configurable(false)->needs("--dry-run");
  };
  add("--vocabulary", options.vocabulary,
      "with --dry-run and without --data: tokens that there are")
      ->capture_default_str()
      ->check(is_number(int64_t{1}, nn::kLargestSize))
      ->excludes("--data");
  add("--memory", options.memory,
      "with --dry-run: GiB that a GPU has free, or with --device cpu the machine, in place of what "
      "the one at hand has")
      ->check(is_number(kAboveZero));
  add("--json", options.json, "with --dry-run: a file for all the figures");
}

void add_model_options(CLI::App& command, nn::ModelConfig& model) {
  add_options(command, model, "Model");
  nn::for_each_mixer(model, [&](std::string_view mixer, auto& options) {
    add_options(command, options, fmt::format("Layers of {}", mixer));
  });
}

void add_training_options(CLI::App& command, train::TrainConfig& config) {
  const auto add = [&](std::string_view name, auto& value, const train::Field& field) {
    return command.add_option(train::option_name(name), value, std::string(field.meaning))
        ->capture_default_str();
  };
  train::for_each_field(config, [&](std::string_view name, auto& value, const train::Field& field) {
    using Value = std::remove_reference_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, bool>) {
      command.add_flag(train::option_name(name), value, std::string(field.meaning));
    } else if constexpr (std::is_arithmetic_v<Value>) {
      add(name, value, field)
          ->check(is_number(static_cast<Value>(field.least), static_cast<Value>(field.most)));
    } else if (name == "precision") {
      add_precision_option(command, value);
    } else if (name == "schedule") {
      const std::vector<std::string> names(std::begin(train::kScheduleNames),
                                           std::end(train::kScheduleNames));
      add(name, value, field)->check(CLI::IsMember(names));
    } else if (name == "recompute") {
      add_recompute_option(command, value);
    } else if (name == "graph") {
      add_graph_option(command, value);
    } else if (name == "plan") {
      add_plan_option(command, value);
    } else {
      add(name, value, field);
    }
  });
}

}  // namespace

void add_train_command(CLI::App& program) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = program.add_subcommand("train", "train a language model on a text");
  command->footer(
      "Trains a language model on a text and leaves a run: a folder with checkpoints "
      "(step-00000500, ...; latest is the newest) and log.jsonl. Ctrl-C, SIGTERM, and a standard "
      "output that breaks write a checkpoint before they stop; --resume goes on as if there had "
      "been no stop, also after a kill or a power cut. With --steps, on the CPU and with as many "
      "--threads, that is bit for bit; with --minutes alone the learning rate follows the clock. A "
      "run may go on on another --device.\n"
      "\n"
      "Examples: pararnn train --data book.txt --minutes 2\n"
      "          pararnn train --data books.tokens --steps 20000 --width 512 --layers 6 --out big\n"
      "          pararnn train --dry-run --preset 7b --precision bfloat16 --memory 139\n"
      "          pararnn train --resume --out big\n");
  command->add_option("--out", arguments->out, "the folder of the run")->capture_default_str();
  command
      ->add_option("--resume", arguments->resume,
                   "go on with the run from its newest checkpoint, or from the one named; options "
                   "given again "
                   "replace those it was started with, where that makes sense")
      ->expected(0, 1)
      ->configurable(false);
  command->add_flag("--overwrite", arguments->overwrite, "delete the run that is in the folder")
      ->configurable(false)
      ->excludes("--resume");
  add_trust_option(*command, arguments->trust_cell);
  command
      ->add_flag("--replace-cell", arguments->replace_cell,
                 "with --resume and --cell: go on with another source of the cell")
      ->configurable(false)
      ->needs("--resume");
  command
      ->add_flag("--profile", arguments->profile,
                 "tell where the time of some of the first steps goes, and leave a trace of them, "
                 "trace.json, which https://ui.perfetto.dev opens")
      ->configurable(false);
  command
      ->add_option("--preset", arguments->preset,
                   fmt::format("sizes of a model, and the learning rate and z-loss to begin with: "
                               "{}; options that are given go first",
                               fmt::join(nn::preset_names(), ", ")))
      ->check(preset_validator());
  add_training_options(*command, arguments->train);
  add_dry_run_options(*command, arguments->dry_run);
  add_model_options(*command, arguments->model);
  add_deterministic_option(*command);
  add_device_option(*command, arguments->device);
  add_threads_option(*command);
  command->callback([command, arguments] {
    if (arguments->dry_run.asked_for) return reckon(*command, *arguments);
    if (const int status = train_model(*command, *arguments)) throw CLI::RuntimeError(status);
  });
}

}  // namespace pararnn::cli
