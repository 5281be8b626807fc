#include "cells/cell_source.hpp"

#include <gtest/gtest.h>

#include "cells/cell_definition.hpp"
#include "cells_test_support.hpp"

namespace pararnn {
namespace {

using Strings = std::vector<std::string>;

TEST(CellSource, FindsTheStructsThatHoldAState) {
  EXPECT_EQ(find_cell_types(kLeakyCell), Strings{"Leaky"});
  EXPECT_EQ(find_cell_types("namespace a::b { namespace { } struct Other { int x; };\n"
                            "template <class T> struct Mine final : Base { enum class Kind { k };\n"
                            "  static constexpr int kState = 1; }; }"),
            Strings{"a::b::Mine"});
  EXPECT_EQ(
      find_cell_types("struct A { static constexpr int kState = 1; void f() { if (x) { } } };\n"
                      "struct B { static constexpr int kState = 2; };"),
      (Strings{"A", "B"}));
  EXPECT_EQ(
      find_cell_types("// struct A { int kState; };\nconst char* x = \"struct B { kState }\";"),
      Strings{});
}

TEST(CellSource, CommentsAndSpacingDoNotCount) {
  EXPECT_EQ(normalized_code("int  a; // one\n\n  int b = 1'000; /* two\n lines */ int c;\n"),
            normalized_code("#line 7 \"x.hpp\"\nint a;\nint b = 1'000;\nint c;\n"));
  EXPECT_NE(normalized_code("const char* s = \"a // b\";"),
            normalized_code("const char* s = \"a\";"));
}

TEST(CellSource, NamesComeFromStructs) {
  EXPECT_EQ(cell_name_of("pararnn::LstmCifg"), "lstm_cifg");
  EXPECT_EQ(cell_name_of("Gru"), "gru");
  EXPECT_EQ(cell_name_of("mine::CfC"), "cf_c");
  EXPECT_EQ(cell_name_of("GRUD"), "grud");
  EXPECT_EQ(cell_name_of("Leaky<2>"), "leaky");
  EXPECT_EQ(cell_name_of("my_cell"), "my_cell");
}

TEST(CellSource, FilesBesideItBecomePartOfTheText) {
  const TestFolder folder;
  folder.write("parts/common.hpp", "#pragma once\n#include \"deep.hpp\"\nint common;\n");
  folder.write("parts/deep.hpp", "#pragma once\nint deep;\n");
  const std::string path = folder.write(
      "cell.hpp",
      "#include \"pararnn/core/cell.hpp\"\n#include \"parts/common.hpp\"\n"
      "#include \"parts/deep.hpp\"  // again\n// #include \"parts/none.hpp\"\nint last;\n");
  const std::string text = read_with_includes(path);
  EXPECT_EQ(normalized_code(text),
            "#include \"pararnn/core/cell.hpp\"\n#pragma once\n#pragma once\nint deep;\nint "
            "common;\nint last;\n");
  EXPECT_EQ(files_of_text(text), (Strings{"cell.hpp", "parts/common.hpp", "parts/deep.hpp"}));
  EXPECT_NE(text.find("#line 4 \"cell.hpp\"\n"), text.npos) << text;
}

TEST(CellSource, WhatCannotBeReadIsNamed) {
  const TestFolder folder;
  EXPECT_EQ(error_of([&] { read_with_includes(folder / "none.hpp"); }),
            "there is no file '" + (folder / "none.hpp").string() + "'");
  const std::string path = folder.write("round.hpp", "#include \"round.hpp\"\n");
  EXPECT_EQ(error_of([&] { read_with_includes(path); }), path + " includes itself");
}

}  // namespace
}  // namespace pararnn
