// A file that is written is whole, or as it was before, whatever goes wrong; and nothing is left
// beside it.
#include "base/output_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>

#include "base/temporary_folder.hpp"
#include "error_test_support.hpp"

namespace pararnn {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  static std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_.path()), {}));
  }

  TemporaryFolder folder_;
  fs::path path_ = folder_ / "file";
};

TEST_F(OutputFileTest, HoldsWhatWasWrittenInAnyPieces) {
  std::string expected;
  OutputFile file(path_);
  for (const size_t size : {0, 1, 1000, (1 << 20) - 1, 1, 1 << 20, 3 << 20, 7}) {
    std::string piece(size, '\0');
    for (size_t i = 0; i < size; ++i) piece[i] = static_cast<char>(i * 7 + size);
    file.write(piece);
    expected += piece;
  }
  file.rewrite(3, "again");
  file.write("end");
  expected.replace(3, 5, "again") += "end";
  EXPECT_FALSE(fs::exists(path_));
  file.close();
  EXPECT_TRUE(read(path_) == expected);
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFileTest, IsReplacedAsAWholeOrNotAtAll) {
  write_file(path_, "first");
  {
    OutputFile file(path_);
    file.write(std::string(3 << 20, 'x'));
    EXPECT_EQ(read(path_), "first");
  }
  EXPECT_EQ(read(path_), "first");
  EXPECT_EQ(files(), 1u);
  // What one that was killed has left.
  std::ofstream(path_.string() + ".unfinished") << "much more than comes now";
  write_file(path_, "second");
  EXPECT_EQ(read(path_), "second");
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFileTest, ALimitOnItsSizeLeavesTheEarlierOne) {
  write_file(path_, "first");
  // It stops the write halfway, as a full disk does.
  rlimit unlimited{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limited = unlimited;
  limited.rlim_cur = 5000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  const std::string sentence = error_of([&] { write_file(path_, std::string(10'000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &unlimited);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(sentence, "cannot write " + path_.string() + ": " + std::strerror(EFBIG));
  EXPECT_EQ(read(path_), "first");
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFileTest, WhatCannotBeWrittenIsNamed) {
  const fs::path missing = folder_ / "none" / "file";
  const std::string sentence = error_of([&] { write_file(missing, "text"); });
  EXPECT_EQ(sentence, "cannot write " + missing.string() + ": " + std::strerror(ENOENT));
  fs::create_directory(path_);
  EXPECT_NE(error_of([&] { write_file(path_, "text"); }).find(path_.string()), std::string::npos);
  EXPECT_EQ(files(), 1u);
}

TEST_F(OutputFileTest, ALinkStaysOne) {
  write_file(path_, "first");
  const fs::path link = folder_ / "link";
  fs::create_symlink("file", link);
  write_file(link, "second");
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(read(path_), "second");
  EXPECT_EQ(files(), 2u);
}

TEST_F(OutputFileTest, HasItsModeFromTheStart) {
  OutputFile file(path_, {.mode = 0600, .suffix = ".mine"});
  struct stat status {};
  ASSERT_EQ(::stat((path_.string() + ".mine").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  file.close();
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(OutputFileTest, WhatIsNoFileIsWrittenToAsItIs) {
  write_file("/dev/null", "text");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const int reader = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK);
  write_file(path_, "text");
  char bytes[8] = {};
  EXPECT_EQ(::read(reader, bytes, sizeof bytes), 4);
  ::close(reader);
  EXPECT_STREQ(bytes, "text");
  EXPECT_TRUE(fs::is_fifo(path_));
}

TEST_F(OutputFileTest, AFullDiskIsAnErrorThatSaysSo) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  for (const size_t size : {1, 1 << 21}) {
    const std::string sentence = error_of([&] { write_file("/dev/full", std::string(size, 'x')); });
    EXPECT_NE(sentence.find("free some space"), std::string::npos) << sentence;
  }
}

}  // namespace
}  // namespace pararnn
