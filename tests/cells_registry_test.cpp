// Cells from files, as values: what is known of them, how they are told apart, what is compiled for
// them, and what is said of those that are none.
#include "cells/cell_registry.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <random>
#include <thread>

#include "cells/cell_reference.hpp"
#include "cells/cpu_kernels.hpp"
#include "cells/trusted_cells.hpp"
#include "cells_test_support.hpp"
#include "pararnn/cpu/scan_backward.hpp"
#include "pararnn/cpu/scan_forward.hpp"

namespace pararnn {
namespace {

/// Caches and trust of its own, so that a test sees nothing of another.
class CellsTest : public testing::Test {
 protected:
  TestFolder folder_;
  WithVariable cache_{"PARARNN_CACHE_DIR", (folder_ / "cache").string()};
  WithVariable data_{"XDG_DATA_HOME", (folder_ / "data").string()};
};

std::vector<float> random_numbers(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& x : numbers) x = normal(random);
  return numbers;
}

/// The largest difference between the engine and the loop, y and du, both compiled for the cell.
template <class T>
double engine_against_loop(const CellDefinition& cell) {
  const Shape shape{2, 300, 5};
  const auto [B, steps, D] = shape;
  const auto numbers = [](size_t count, unsigned seed) {
    const std::vector<float> v = random_numbers(count, seed);
    return std::vector<T>(v.begin(), v.end());
  };
  const std::vector<T> u = numbers(B * steps * cell.inputs * D, 1), w = numbers(cell.params * D, 2),
                       dy = numbers(B * steps * D, 3), zeros(B * cell.state * D);
  std::vector<T> y_loop(dy.size()), hT_loop(zeros.size()), y(dy.size()), hT(zeros.size());
  const CellReference& loops = cell_reference(cell);
  if constexpr (sizeof(T) == 4) {
    loops.single_forward(shape, u.data(), w.data(), zeros.data(), y_loop.data(), hT_loop.data(),
                         nullptr, {});
  } else {
    loops.double_forward(shape, u.data(), w.data(), zeros.data(), y_loop.data(), hT_loop.data(),
                         nullptr, {});
  }
  const auto view = [&](const std::vector<T>& data, std::int64_t components) {
    return cpu::TensorView{const_cast<T*>(data.data()),
                           sizeof(T) == 4 ? cpu::Storage::kFloat32 : cpu::Storage::kFloat64,
                           steps * components * D,
                           components * D,
                           D,
                           0,
                           D};
  };
  cpu::ForwardProblem<T> problem{};
  problem.size = {B, steps, D, 0, 0, 0};
  problem.u = view(u, cell.inputs);
  problem.y = view(y, 1);
  problem.w = w.data();
  problem.hT = hT.data();
  problem.tolerance = kDefaultTolerance<T>;
  cpu::scan_forward<T>(cpu_kernels<T>(cell), cpu::serial_executor(), problem,
                       {Way::kSpeculative, 48, 7, 16});
  double largest = 0;
  for (size_t i = 0; i < y.size(); ++i)
    largest = std::max<double>(largest, std::abs(y[i] - y_loop[i]));
  return largest;
}

TEST_F(CellsTest, BuiltInCellsAreThere) {
  EXPECT_GE(built_in_cells().size(), 5u);
  for (const CellDefinition& cell : built_in_cells()) {
    EXPECT_EQ(&find_cell(cell.key()), &find_cell(cell.name));
    EXPECT_EQ(spelling_of(cell), cell.name);
    EXPECT_GE(cell.state, 1);
    EXPECT_FALSE(cell.summary.empty()) << cell.name;
  }
  const std::string error = error_of([] { find_cell("perceptron"); });
  for (const CellDefinition& cell : built_in_cells()) {
    EXPECT_NE(error.find(cell.name), error.npos) << error;
  }
}

TEST_F(CellsTest, ABuiltInCellIsWhatItsTextDescribes) {
  for (const CellDefinition& cell : built_in_cells()) {
    const CellDefinition again = define_cell(cell.text, cell.name);
    EXPECT_EQ(again.key(), cell.key());
    EXPECT_EQ(again.state, cell.state);
    EXPECT_EQ(again.input_names, cell.input_names);
    EXPECT_EQ(again.memory_input, cell.memory_input);
    EXPECT_EQ(again.memory_direction, cell.memory_direction);
  }
}

TEST_F(CellsTest, AFileIsACell) {
  const CellDefinition& cell = find_cell(folder_.write("leaky.hpp", kLeakyCell));
  EXPECT_EQ(cell.name, "leaky");
  EXPECT_EQ(cell.type, "Leaky");
  EXPECT_EQ(cell.state, 1);
  EXPECT_EQ(cell.inputs, 2);
  EXPECT_EQ(cell.params, 1);
  EXPECT_EQ(&find_cell("leaky"), &cell);
  EXPECT_LT(engine_against_loop<float>(cell), 1e-5);
  EXPECT_LT(engine_against_loop<double>(cell), 1e-11);
}

TEST_F(CellsTest, ACellDefinedAnewIsAnother) {
  const std::string path = folder_.write("leaky.hpp", kLeakyCell);
  const CellDefinition& before = find_cell(path);
  folder_.write("leaky.hpp", replaced(kLeakyCell, "tanh(u[1]", "sigmoid(u[1]"));
  std::filesystem::last_write_time(
      path, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  const CellDefinition& after = find_cell(path);
  EXPECT_NE(before.key(), after.key());
  EXPECT_EQ(&find_cell("leaky"), &after);
  EXPECT_EQ(&find_cell(before.key()), &before);
  EXPECT_NE(cpu_kernels<float>(before).forward, cpu_kernels<float>(after).forward);
  EXPECT_LT(engine_against_loop<float>(after), 1e-5);
}

TEST_F(CellsTest, AFileOfSeveralCellsSaysWhich) {
  const std::string path = folder_.write(
      "two.hpp", std::string(kLeakyCell) + replaced(kLeakyCell, "struct Leaky", "struct Other"));
  const std::string error = error_of([&] { find_cell(path); });
  EXPECT_NE(error.find("several cells"), error.npos) << error;
  EXPECT_EQ(find_cell(path + ":Other").name, "other");
  EXPECT_NE(error_of([&] { find_cell(path + ":None"); }).find("it holds Leaky, Other"),
            std::string::npos);
}

TEST_F(CellsTest, ABuiltInNameIsNotTakenOver) {
  const std::string path =
      folder_.write("gru.hpp", replaced(kLeakyCell, "struct Leaky", "struct Gru"));
  const std::string error = error_of([&] { find_cell(path); });
  EXPECT_NE(error.find("there is a built-in cell 'gru' already"), error.npos) << error;
}

/// The first line names the file and the line; the compiler's words stand below.
void expect_refused(const std::string& error, const std::string& where, const std::string& why) {
  EXPECT_EQ(error.find(where), 0u) << error;
  EXPECT_NE(error.substr(0, error.find('\n')).find(why), std::string::npos) << error;
  EXPECT_NE(error.find('\n'), error.npos) << "no words of the compiler: " << error;
}

TEST_F(CellsTest, WhatDoesNotCompileIsShownAtTheUsersLine) {
  const std::string path =
      folder_.write("leaky.hpp", replaced(kLeakyCell, "sigmoid(u[0])", "sigmod(u[0])"));
  expect_refused(error_of([&] { find_cell(path); }), path + ":8: ", "sigmod");
}

TEST_F(CellsTest, AStructThatBreaksTheContractIsToldWhy) {
  const std::string counts = replaced(kLeakyCell, "kInputs = 2", "kInputs = 3");
  expect_refused(error_of([&] { find_cell(folder_.write("counts.hpp", counts)); }),
                 (folder_ / "counts.hpp").string(), "kInputs");
  const std::string many = replaced(kLeakyCell, "kParams = 1", "kParams = 40");
  expect_refused(error_of([&] { find_cell(folder_.write("many.hpp", many)); }),
                 (folder_ / "many.hpp").string(), "32");
  EXPECT_NE(error_of([&] {
              find_cell(folder_.write("none.hpp", "int x;\n"));
            }).find("holds no cell: a struct with kState"),
            std::string::npos);
}

TEST_F(CellsTest, WithoutACompilerNvrtcDescribesACell) {
  const WithVariable path("PATH", (folder_ / "nothing").string());
  const CellDefinition cell = define_cell(replaced(kLeakyCell, "struct Leaky", "struct Bare"));
  EXPECT_EQ(cell.inputs, 2);
  EXPECT_EQ(cell.params, 1);
  EXPECT_NE(error_of([&] { cpu_kernels<float>(cell); }).find("there is no C++ compiler here"),
            std::string::npos);
  const std::string wrong = replaced(kLeakyCell, "sigmoid(u[0])", "sigmod(u[0])");
  expect_refused(error_of([&] { read_cell(folder_.write("wrong.hpp", wrong)); }),
                 (folder_ / "wrong.hpp").string() + ":8: ", "sigmod");
}

TEST_F(CellsTest, ProcessesThatNeedOneCellCompileItOnce) {
  // A compiler that counts its runs.
  const std::string compiler = folder_.write(
      "compiler", "#!/bin/sh\necho run >>'" + (folder_ / "runs").string() + "'\nexec c++ \"$@\"\n");
  std::filesystem::permissions(compiler, std::filesystem::perms::owner_all);
  const WithVariable variable("CXX", compiler);
  const std::string text = replaced(kLeakyCell, "struct Leaky", "struct Once");
  for (int i = 0; i < 4; ++i) {
    if (::fork() == 0) {
      const bool right = define_cell(text).inputs == 2;
      ::_exit(right ? 0 : 1);
    }
  }
  for (int i = 0; i < 4; ++i) {
    int status = 0;
    ::wait(&status);
    EXPECT_EQ(status, 0);
  }
  std::ifstream runs(folder_ / "runs");
  EXPECT_EQ(std::count(std::istreambuf_iterator<char>(runs), {}, '\n'), 1);
}

TEST_F(CellsTest, ASourceFromElsewhereIsNotCompiledUnasked) {
  const std::string text = replaced(kLeakyCell, "struct Leaky", "struct Foreign");
  const std::string path = folder_.write("cell.hpp", text);
  const std::string error = error_of([&] { find_stored_cell(path, "foreign", false); });
  EXPECT_NE(error.find("--trust-cell"), error.npos) << error;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "cache"));
  EXPECT_EQ(find_stored_cell(path, "foreign", true).inputs, 2);
  EXPECT_TRUE(is_trusted(find_cell("foreign")));
  EXPECT_EQ(find_stored_cell(path, "foreign", false).name, "foreign");
}

TEST_F(CellsTest, AStoredBuiltInCellNeedsNothing) {
  const WithVariable path("PATH", (folder_ / "nothing").string());
  const CellDefinition& gru = find_cell("gru");
  EXPECT_EQ(&find_stored_cell(folder_.write("cell.hpp", "// old\n" + gru.text), "gru", false),
            &gru);
}

}  // namespace
}  // namespace pararnn
