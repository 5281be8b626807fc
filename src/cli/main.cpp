// The program. Each subcommand adds itself; here are only what they share: config files, and how
// errors are told.
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <limits>
#include <new>
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
#include "cli/tokenize.hpp"
#include "cli/train.hpp"
#include "kernels/version.hpp"

namespace {

constexpr int kFailure = 1, kBadUsage = 2;

/// Says what went wrong, in one line.
int fail(std::string_view message, int status) {
  fmt::print(stderr, "pararnn: {}\n", message);
  return status;
}

/// What others than this project say may be pages.
std::string_view first_line(std::string_view message) {
  return message.substr(0, message.find('\n'));
}

int run(int argc, char** argv) {
  CLI::App program(
      "Language models that are nonlinear recurrent networks, trained in parallel along the "
      "sequence.",
      "pararnn");
  program.set_version_flag("--version", pararnn::version());
  program.require_subcommand(0, 1);
  pararnn::cli::set_help_format(program);
  pararnn::cli::add_config_file_option(program);
  pararnn::cli::add_train_command(program);
  pararnn::cli::add_eval_command(program);
  pararnn::cli::add_generate_command(program);
  pararnn::cli::add_tokenize_command(program);
  pararnn::cli::add_cells_command(program);
  pararnn::cli::add_check_command(program);
  pararnn::cli::add_bench_command(program);
  try {
    program.parse(argc, argv);
    if (program.get_subcommands().empty()) fmt::print("{}", program.help());
    return 0;
  } catch (const CLI::RuntimeError& status) {  // a command's own exit status
    return status.get_exit_code();
  } catch (const CLI::Success& asked) {  // --help, --version
    return program.exit(asked);
  } catch (const CLI::ParseError& error) {
    const auto commands = program.get_subcommands();
    const std::string command = commands.empty() ? "" : " " + commands.front()->get_name();
    return fail(fmt::format("{} (see pararnn{} --help)", first_line(error.what()), command),
                kBadUsage);
  }
}

// Large tensors come and go with every step. Their memory is kept for the next one: given back to
// the system it would be cleared page by page each time, a seventh of a forward and backward pass.
void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 256 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  keep_freed_memory();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write, not the end
  pararnn::cli::use_threads(0);
  try {
    const int status = run(argc, argv);
    return std::fflush(stdout) == 0 ? status : fail("cannot write to standard output", kFailure);
  } catch (const c10::Error& error) {
    return fail(first_line(error.what_without_backtrace()), kFailure);
  } catch (const std::bad_alloc&) {
    return fail("out of memory", kFailure);
  } catch (const pararnn::Error& error) {
    return fail(error.what(), kFailure);
  } catch (const std::exception& error) {
    return fail(first_line(error.what()), kFailure);
  }
}
