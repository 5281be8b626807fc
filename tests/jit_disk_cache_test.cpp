#include "jit/disk_cache.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "jit/digest.hpp"
#include "jit/system.hpp"

namespace pararnn::jit {
namespace {

namespace fs = std::filesystem;

class DiskCacheTest : public testing::Test {
 protected:
  DiskCacheTest() {
    std::string pattern = (fs::temp_directory_path() / "pararnn-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~DiskCacheTest() override { fs::remove_all(root_); }

  std::string random_content(size_t size) {
    std::string content(size, '\0');
    for (char& byte : content) byte = static_cast<char>(random_());
    return content;
  }

  static void write(const fs::path& path, std::string_view content) {
    std::ofstream(path, std::ios::binary) << content;
  }
  size_t files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(root_ / "cache"), {}));
  }

  fs::path root_;
  std::mt19937_64 random_{1};
};

TEST(Digest, IsFnv1a) {
  // Of eight zero bytes, the length of nothing: offset · prime^8 (mod 2^128).
  unsigned __int128 state =
      (static_cast<unsigned __int128>(0x6c62272e07bb0142) << 64) | 0x62b821756295c58d;
  for (int i = 0; i < 8; ++i) state *= (static_cast<unsigned __int128>(1) << 88) | 0x13b;
  EXPECT_EQ(Digest().add("").text(),
            fmt::format("{:016x}{:016x}", uint64_t(state >> 64), uint64_t(state)));
}

TEST(Digest, TellsPiecesApart) {
  EXPECT_EQ(Digest().add("ab").add("c").text(), Digest().add("ab").add("c").text());
  EXPECT_NE(Digest().add("ab").add("c").text(), Digest().add("a").add("bc").text());
  EXPECT_NE(Digest().add("ab").text(), Digest().add("ab").add("").text());
}

TEST_F(DiskCacheTest, GivesBackWhatWasStored) {
  const DiskCache cache(root_ / "not" / "yet" / "there");
  EXPECT_EQ(cache.load("key"), std::nullopt);
  for (const size_t size : {0, 1, 100, 100000}) {
    const std::string content = random_content(size), another = random_content(size);
    cache.store("key", content);
    EXPECT_EQ(cache.load("key"), content);
    cache.store("key", another);
    EXPECT_EQ(cache.load("key"), another);
    EXPECT_EQ(cache.load("other"), std::nullopt);
  }
}

TEST_F(DiskCacheTest, DamagedEntriesAreNotThere) {
  const DiskCache cache(root_ / "cache");
  const std::string content = random_content(100);
  cache.store("key", content);
  const fs::path path = root_ / "cache" / "key";
  const std::string entry = read_file(path).value();
  for (size_t size = 0; size < entry.size(); ++size) {
    write(path, std::string_view(entry).substr(0, size));
    EXPECT_EQ(cache.load("key"), std::nullopt) << "cut to " << size;
  }
  for (size_t at = 0; at < entry.size(); ++at) {
    std::string damaged = entry;
    damaged[at] ^= static_cast<char>(1 << random_() % 8);
    write(path, damaged);
    EXPECT_EQ(cache.load("key"), std::nullopt) << "changed at " << at;
  }
  write(path, entry + 'x');
  EXPECT_EQ(cache.load("key"), std::nullopt);
  write(root_ / "cache" / "other", entry);
  EXPECT_EQ(cache.load("other"), std::nullopt) << "an entry under another's name";
  fs::remove(path);
  fs::create_directory(path);
  EXPECT_EQ(cache.load("key"), std::nullopt) << "a folder";
  fs::remove(path);
  cache.store("key", content);
  EXPECT_EQ(cache.load("key"), content);
}

TEST_F(DiskCacheTest, ProcessesSeeWholeEntriesOnly) {
  const DiskCache cache(root_ / "cache");
  std::vector<std::string> contents;
  for (int i = 0; i < 4; ++i) contents.push_back(random_content(50000 + 1000 * i));
  std::vector<pid_t> children;
  for (const std::string& content : contents) {
    const pid_t child = fork();
    if (child == 0) {
      bool whole = true;
      for (int i = 0; i < 50; ++i) {
        cache.store("key", content);
        const auto found = cache.load("key");
        whole = whole && found && std::ranges::find(contents, *found) != contents.end();
      }
      _exit(whole ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(files(), 1u);
}

TEST_F(DiskCacheTest, WithoutAFolderNothingIsKeptAndOneLineIsSaid) {
  // Root may write everywhere, but not below a file.
  write(root_ / "file", "");
  const DiskCache blocked(root_ / "file" / "cache");
  testing::internal::CaptureStderr();
  blocked.store("key", "content");
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("cannot write in '" + (root_ / "file" / "cache").string()), said.npos)
      << said;
  EXPECT_EQ(std::ranges::count(said, '\n'), 1);
  EXPECT_EQ(blocked.load("key"), std::nullopt);

  testing::internal::CaptureStderr();
  blocked.store("key", "content");
  DiskCache("").store("key", "content");
  EXPECT_EQ(DiskCache("").load("key"), std::nullopt);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(DiskCacheTest, AFullDiskLeavesTheEarlierEntryAndNothingElse) {
  const DiskCache cache(root_ / "cache");
  cache.store("key", "content");
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    cache.store("key", random_content(5000));
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(cache.load("key"), "content");
  EXPECT_EQ(files(), 1u);
}

TEST_F(DiskCacheTest, TheFolderIsItsOwnersAlone) {
  DiskCache(root_ / "cache").store("key", "content");
  EXPECT_EQ(fs::status(root_ / "cache").permissions(), fs::perms::owner_all);
}

TEST(CacheFolder, FollowsTheEnvironment) {
  setenv("HOME", "/h", 1);
  unsetenv("XDG_CACHE_HOME");
  unsetenv("PARARNN_CACHE_DIR");
  EXPECT_EQ(cache_folder(), "/h/.cache/pararnn");
  setenv("XDG_CACHE_HOME", "/x", 1);
  EXPECT_EQ(cache_folder(), "/x/pararnn");
  setenv("PARARNN_CACHE_DIR", "/p", 1);
  EXPECT_EQ(cache_folder(), "/p");
  unsetenv("HOME");
  unsetenv("XDG_CACHE_HOME");
  unsetenv("PARARNN_CACHE_DIR");
  EXPECT_EQ(cache_folder(), "");
}

}  // namespace
}  // namespace pararnn::jit
