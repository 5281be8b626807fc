#include "cli/program.hpp"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "base/error.hpp"
#include "cli/bench.hpp"
#include "cli/cells.hpp"
#include "cli/check.hpp"
#include "cli/common_options.hpp"
#include "cli/config_file.hpp"
#include "cli/eval.hpp"
#include "cli/generate.hpp"
#include "cli/help.hpp"
#include "cli/plot.hpp"
#include "cli/tokenize.hpp"
#include "cli/train.hpp"
#include "cli/usage_errors.hpp"
#include "kernels/version.hpp"
#include "train/memory.hpp"

namespace pararnn::cli {
namespace {

constexpr int kFailure = 1, kBadUsage = 2;

constexpr std::string_view kOutputLost = "cannot write to standard output";

/// Says what went wrong, in one line, if anybody listens.
int fail(std::string_view message, int status) {
  std::fputs(fmt::format("pararnn: {}\n", message).c_str(), stderr);
  return status;
}

/// What others than this project say may be pages.
std::string_view first_line(std::string_view message) {
  return message.substr(0, message.find('\n'));
}

int parse_and_run(int argc, char** argv) {
  CLI::App program(
      "Language models that are nonlinear recurrent networks, trained in parallel along the "
      "sequence.",
      "pararnn");
  program.set_version_flag("--version", version());
  program.require_subcommand(0, 1);
  set_help_format(program);
  add_config_file_option(program);
  add_train_command(program);
  add_eval_command(program);
  add_generate_command(program);
  add_tokenize_command(program);
  add_cells_command(program);
  add_check_command(program);
  add_bench_command(program);
  add_plot_command(program);
  refuse_what_is_no_number(program);
  try {
    program.parse(argc, argv);
    if (program.get_subcommands().empty()) fmt::print("{}", program.help());
    return 0;
  } catch (const CLI::RuntimeError& status) {  // a command's own exit status
    return status.get_exit_code();
  } catch (const CLI::Success& asked) {  // --help, --version
    return program.exit(asked);
  } catch (const CLI::ParseError& error) {
    return fail(describe(program, error), kBadUsage);
  }
}

}  // namespace

int run_program(int argc, char** argv) {
  use_threads(0);
  try {
    const int status = parse_and_run(argc, argv);
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    return written || status != 0 ? status : fail(kOutputLost, kFailure);
  } catch (const Error& error) {
    return fail(error.what(), kFailure);
  } catch (const std::exception& error) {
    if (const std::string out_of_memory = train::describe_out_of_memory(error);
        !out_of_memory.empty()) {
      return fail(out_of_memory + ": give smaller sizes", kFailure);
    }
    if (std::ferror(stdout) != 0) return fail(kOutputLost, kFailure);
    const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
    return fail(first_line(of_torch ? of_torch->what_without_backtrace() : error.what()), kFailure);
  }
}

}  // namespace pararnn::cli
