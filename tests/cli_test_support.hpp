// What the tests of the program share: a folder, and the program run in it as a shell does.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <wordexp.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/temporary_folder.hpp"
#include "cli/program.hpp"

namespace pararnn::test {

struct Outcome {
  int status;
  std::string out, err;
};

class Program : public testing::Test {
 protected:
  /// Runs a line of the shell in the test's folder, where $pararnn is the program; its exit status.
  int shell(const std::string& line) const {
    const std::string command =
        "pararnn='" PARARNN_PROGRAM "'; cd '" + folder_.path().string() + "' && { " + line + "\n}";
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  /// Runs `pararnn arguments` in the test's folder, a process of its own. Arguments and environment
  /// are a shell's.
  Outcome run(const std::string& arguments, const std::string& environment = "") const {
    const int status =
        shell(environment + " \"$pararnn\" " + arguments + " > out 2> err < /dev/null");
    return {status, read("out"), read("err")};
  }
  Outcome succeed(const std::string& arguments, const std::string& environment = "") const {
    const Outcome outcome = run(arguments, environment);
    EXPECT_EQ(outcome.status, 0) << "pararnn " << arguments << '\n' << outcome.err;
    return outcome;
  }

  /// What `pararnn arguments` does in the test's folder, in this process: starting one takes longer
  /// than much that is asked of the program. What a run leaves behind in its process is not seen
  /// here: runs that are gone on with, and signals and outputs that break, are for `run` and
  /// `shell`.
  Outcome ask(const std::string& arguments) const {
    wordexp_t words;
    if (::wordexp(("pararnn " + arguments).c_str(), &words, WRDE_NOCMD) != 0) {
      ADD_FAILURE() << "no words of a shell: " << arguments;
      return {-1, {}, {}};
    }
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(folder_.path());
    const auto on_broken_pipes = std::signal(SIGPIPE, SIG_DFL);
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int status = cli::run_program(static_cast<int>(words.we_wordc), words.we_wordv);
    Outcome outcome{status, testing::internal::GetCapturedStdout(),
                    testing::internal::GetCapturedStderr()};
    std::signal(SIGPIPE, on_broken_pipes);
    std::filesystem::current_path(before);
    ::wordfree(&words);
    return outcome;
  }
  /// The same of arguments that are right.
  Outcome answer(const std::string& arguments) const {
    Outcome outcome = ask(arguments);
    EXPECT_EQ(outcome.status, 0) << "pararnn " << arguments << '\n' << outcome.err;
    return outcome;
  }
  /// Expects one sentence on stderr that names each of `culprits`.
  void fail(const std::string& arguments, int status,
            const std::vector<std::string>& culprits) const {
    const Outcome outcome = ask(arguments);
    SCOPED_TRACE("pararnn " + arguments + "\n" + outcome.err);
    EXPECT_EQ(outcome.status, status);
    EXPECT_EQ(outcome.err.rfind("pararnn: ", 0), 0u);
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
    for (const std::string& culprit : culprits) {
      EXPECT_NE(outcome.err.find(culprit), std::string::npos) << "does not name " << culprit;
    }
  }

  std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }

  TemporaryFolder folder_;
};

}  // namespace pararnn::test
