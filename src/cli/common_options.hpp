// Options that several subcommands share.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn::cli {

/// As the least of a number: it must be above 0.
inline constexpr double kAboveZero = std::numeric_limits<double>::denorm_min();

/// Takes a number from `least` to `most`, and no NaN. (CLI11's ranges let NaN through, and write
/// out the largest double; its unsigned numbers may be negative.)
template <class Number>
CLI::Validator is_number(Number least = std::numeric_limits<Number>::lowest(),
                         Number most = std::numeric_limits<Number>::max()) {
  return CLI::Validator(
      [=](const std::string& text) -> std::string {
        Number value{};
        std::string must;
        const bool wraps = std::is_unsigned_v<Number> && text.starts_with('-');
        if (wraps || !CLI::detail::lexical_cast(text, value) || value != value) {
          const bool digits = text.find_first_not_of("0123456789") == text.npos;
          must = std::is_floating_point_v<Number> ? "a number"
                 : digits                         ? fmt::format("at most {}", most)
                 : std::is_signed_v<Number>       ? "a whole number"
                                                  : "a whole number, 0 or more";
        } else if (value < least) {
          must = least == kAboveZero ? "above 0" : fmt::format("at least {}", least);
        } else if (value > most) {
          must = fmt::format("at most {}", most);
        }
        return must.empty() ? "" : fmt::format("must be {}, not {}", must, text);
      },
      "");
}

/// Takes what nn::require_mixers takes.
CLI::Validator layer_pattern_validator();

/// What `action` returns; an Error that it throws names the option that it is about.
template <class Action>
auto about_option(std::string_view option, Action action) {
  try {
    return action();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", option, error.what()));
  }
}

/// Computes with that many threads; 0: one for each core that this process may use.
void use_threads(int threads);

/// --threads: as use_threads.
void add_threads_option(CLI::App& command);

/// --device: a name for train::find_device.
void add_device_option(CLI::App& command, std::string& device);

/// --precision: the name of a dtype, for train::precision_dtype.
void add_precision_option(CLI::App& command, std::string& precision);

/// --recompute: a name for train::recompute_choice.
void add_recompute_option(CLI::App& command, std::string& recompute);

/// --plan, as plan.hpp names them.
void add_plan_option(CLI::App& command, std::string& plan);

/// --graph: a name of train::kGraphNames.
void add_graph_option(CLI::App& command, std::string& graph);

/// --deterministic: train::use_deterministic_algorithms.
void add_deterministic_option(CLI::App& command);

/// --plan, --tolerance and --deterministic: how scans are run.
void add_scan_options(CLI::App& command, ScanOptions& options);

/// A model to load.
struct ModelOption {
  std::string path;  // a run or a checkpoint
  bool trust_cell = false;
};
/// --model and --trust-cell.
void add_model_option(CLI::App& command, ModelOption& model);
void add_trust_option(CLI::App& command, bool& trust_cell);

/// A cell: a name, or a file, which is read and registered.
CLI::Option* add_cell_option(CLI::App& command, std::string& cell, const std::string& meaning);
/// Several, with commas between them.
CLI::Option* add_cell_option(CLI::App& command, std::vector<std::string>& cells,
                             const std::string& meaning);

}  // namespace pararnn::cli
