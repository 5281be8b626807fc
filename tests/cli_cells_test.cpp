// A cell that the program has never seen, from a file to a trained model, as a person does it.
#include "cli_test_support.hpp"

namespace pararnn::test {
namespace {

namespace fs = std::filesystem;

/// With a home of its own: what the user trusts.
class CellsProgram : public Program {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 3000; ++i) text += "the state of a cell depends on its input.\n";
    write("text.txt", text);
  }
  std::string of(const std::string& home) const {
    const std::string at = (folder_ / home).string();
    return "XDG_DATA_HOME='" + at + "/data'";
  }
  void succeed(const std::string& arguments, const std::string& home = "home") const {
    Program::succeed(arguments, of(home));
  }
  void fail(const std::string& arguments, const std::string& words,
            const std::string& home = "home") const {
    const Outcome outcome = run(arguments, of(home));
    EXPECT_NE(outcome.status, 0) << "pararnn " << arguments;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << outcome.err;
  }

  static constexpr const char* kTrain =
      "train --data text.txt --steps 4 --width 16 --layers 1 --batch 2 --length 32 --device cpu ";
};

TEST_F(CellsProgram, ASkeletonTrainsAndIsChecked) {
  succeed("cells new my_cell --inputs f,i,c --state h,m");
  Program::fail("cells new my_cell", 1, {"exists already"});
  Program::fail("cells new 'my cell'", 1, {"cannot name a cell"});
  succeed("check --cell ./my_cell.hpp --steps 200 --device cpu");
  succeed(std::string(kTrain) + "--cell ./my_cell.hpp --out run");
  succeed("eval --model run --device cpu");
  // The checkpoint alone is enough.
  fs::remove(folder_ / "my_cell.hpp");
  succeed("generate --model run --tokens 5 --device cpu");
  succeed("train --resume --out run --steps 6 --device cpu");
}

TEST_F(CellsProgram, EverySkeletonIsACell) {
  for (const char* options : {"", "--inputs c", "--inputs a,b,d,e --state x,y,z"}) {
    fs::remove(folder_ / "my_cell.hpp");
    answer(std::string("cells new my_cell ") + options);
    succeed("check --cell my_cell.hpp --steps 100 --channels 3 --device cpu");
  }
}

TEST_F(CellsProgram, AnotherSourceIsRefusedUnlessTold) {
  answer("cells new my_cell");
  succeed(std::string(kTrain) + "--cell ./my_cell.hpp --out run");
  std::string text = read("my_cell.hpp");
  const size_t at = text.find("tanh(");
  ASSERT_NE(at, text.npos);
  write("other.hpp", text.replace(at, 5, "sin("));
  fail("train --resume --out run --steps 6 --device cpu --cell ./other.hpp", "--replace-cell");
  succeed("train --resume --out run --steps 6 --device cpu --cell ./other.hpp --replace-cell");
  EXPECT_NE(read("run/latest/cell.hpp").find("sin("), std::string::npos);
  // A comment does not make another source.
  write("other.hpp", "// The same.\n" + text);
  succeed("train --resume --out run --steps 8 --device cpu --cell ./other.hpp");
}

TEST_F(CellsProgram, AForeignSourceIsCompiledOnlyWhenTrusted) {
  answer("cells new my_cell");
  succeed(std::string(kTrain) + "--cell ./my_cell.hpp --out run");
  fail("generate --model run --tokens 2 --device cpu", "--trust-cell", "other-home");
  succeed("generate --model run --tokens 2 --device cpu --trust-cell", "other-home");
  succeed("generate --model run --tokens 2 --device cpu", "other-home");
}

TEST_F(CellsProgram, WhatDoesNotCompileIsShownWithTheCompilersWords) {
  write("bad.hpp", R"(#include "pararnn/cell.hpp"
struct Bad {
  static constexpr int kState = 1, kInputs = 1, kParams = 1;
  template <class T>
  PARARNN_FN static pararnn::Vec<T, 1> step(const pararnn::Vec<T, 1>& h,
                                            const pararnn::Vec<T, 1>& u,
                                            const pararnn::Vec<T, 1>& w) {
    return {tanhh(u[0] + w[0] * h[0])};
  }
};
)");
  const Outcome outcome = run("check --cell ./bad.hpp", of("home"));
  EXPECT_NE(outcome.status, 0);
  EXPECT_EQ(outcome.err.find("pararnn: ./bad.hpp:8: the cell bad does not compile: "), 0u)
      << outcome.err;
  EXPECT_GT(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 2) << outcome.err;
  Program::fail("check --cell ./none.hpp", 1, {"there is no file './none.hpp'"});
  Program::fail("train --cell perceptron", 2, {"there is no cell 'perceptron'"});
}

}  // namespace
}  // namespace pararnn::test
