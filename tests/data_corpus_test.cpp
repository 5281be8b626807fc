#include "data/corpus.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "data_test_support.hpp"

namespace pararnn::data {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names(const std::vector<Document>& documents, const fs::path& root) {
  std::vector<std::string> result;
  for (const Document& document : documents)
    result.push_back(fs::relative(document.path, root).string());
  return result;
}

std::string random_name(Random& random) {
  std::string name;
  for (int64_t depth = random_below(random, 3); depth > 0; --depth) {
    name += "folder" + std::to_string(random_below(random, 4)) + "/";
  }
  return name + "file" + std::to_string(random_below(random, 1000));
}

std::map<std::string, std::string> random_files(Random& random, int64_t count) {
  std::map<std::string, std::string> files;
  while (std::ssize(files) < count) {
    files[random_name(random)] = random_text(random, 1 + random_below(random, 100));
  }
  return files;
}

TEST(Corpus, TheOrderIsThatOfThePathsHoweverTheFilesCame) {
  Random random(1);
  for (int trial = 0; trial < 10; ++trial) {
    const auto files = random_files(random, 30);
    std::vector<std::pair<std::string, std::string>> order(files.begin(), files.end());
    const TemporaryFolder sorted, shuffled;
    for (const auto& [name, text] : order) write(sorted / name, text);
    std::shuffle(order.begin(), order.end(), random);
    for (const auto& [name, text] : order) write(shuffled / name, text);

    const Corpus a = open_corpus(sorted.path(), 0.3), b = open_corpus(shuffled.path(), 0.3);
    EXPECT_EQ(names(a.training, sorted.path()), names(b.training, shuffled.path()));
    EXPECT_EQ(names(a.held_out, sorted.path()), names(b.held_out, shuffled.path()));
    EXPECT_EQ(a.fingerprint, b.fingerprint);
    const auto list = names(a.training, sorted.path());
    EXPECT_TRUE(std::is_sorted(list.begin(), list.end()));
  }
}

// Files of one byte to thousands, a few of which may be most of the text.
TEST(Corpus, EveryByteIsOnOneSideAndEachSideHasAboutItsShare) {
  Random random(2);
  for (int trial = 0; trial < 150; ++trial) {
    const TemporaryFolder folder;
    const double share = std::array{0.0, 0.01, 0.05, 0.3, 0.5, 0.9, 0.99}[size_t(trial % 7)];
    std::map<std::string, std::string> files;
    const int64_t count = 1 + random_below(random, trial % 3 == 0 ? 30 : 5);
    while (std::ssize(files) < count) {
      const auto size = std::exp2(12.0 * static_cast<double>(random_below(random, 1000)) / 1000);
      files[random_name(random)] = random_text(random, static_cast<int64_t>(size));
    }
    int64_t all = 0;
    for (const auto& [name, text] : files) {
      write(folder / name, text);
      all += std::ssize(text);
    }
    const Corpus corpus = open_corpus(folder.path(), share);
    std::map<fs::path, std::vector<std::pair<int64_t, int64_t>>> pieces;
    for (const auto* side : {&corpus.training, &corpus.held_out}) {
      for (const Document& document : *side) {
        EXPECT_LT(document.begin, document.end);
        pieces[document.path].emplace_back(document.begin, document.end);
      }
    }
    EXPECT_EQ(std::ssize(pieces), count);
    int64_t cuts = 0;
    for (auto& [path, of_file] : pieces) {
      std::sort(of_file.begin(), of_file.end());
      int64_t end = 0;
      for (const auto& [begin, next] : of_file) {
        EXPECT_EQ(begin, end) << path;
        end = next;
      }
      EXPECT_EQ(end, std::ssize(files.at(fs::relative(path, folder.path())))) << path;
      cuts += std::ssize(of_file) - 1;
    }
    EXPECT_LE(cuts, 1);

    const int64_t held_out = total_bytes(corpus.held_out);
    EXPECT_EQ(held_out + total_bytes(corpus.training), all);
    if (share == 0) {
      EXPECT_EQ(held_out, 0);
      continue;
    }
    const double slack = std::max(1.0, static_cast<double>(all) * std::min(share, 1 - share) / 2);
    EXPECT_NEAR(static_cast<double>(held_out), share * static_cast<double>(all), slack)
        << count << " files of " << all << " bytes";
    if (all < 2) continue;
    EXPECT_GT(held_out, 0);
    EXPECT_GT(total_bytes(corpus.training), 0);
  }
}

TEST(Corpus, ALargeFileAmongFewIsNotHeldOutWhole) {
  Random random(6);
  for (int trial = 0; trial < 20; ++trial) {
    const TemporaryFolder folder;
    write(folder / ("large" + std::to_string(trial)), random_text(random, 100'000));
    write(folder / "small", "1234567");
    const Corpus corpus = open_corpus(folder.path(), kHeldOutShare);
    EXPECT_GT(total_bytes(corpus.training), 90'000);
    EXPECT_GT(total_bytes(corpus.held_out), 2'000);
  }
}

// Where the files come to about their share without a look at their sizes.
TEST(Corpus, ANewFileLeavesTheSidesOfTheOthers) {
  Random random(3);
  const TemporaryFolder folder;
  for (const auto& [name, text] : random_files(random, 60)) write(folder / name, text);
  const auto before = names(open_corpus(folder.path(), 0.3).held_out, folder.path());
  write(folder / "zzz", "another file");
  auto after = names(open_corpus(folder.path(), 0.3).held_out, folder.path());
  std::erase(after, "zzz");
  EXPECT_EQ(after, before);
}

TEST(Corpus, HoldsOutAboutTheShareThatIsAskedFor) {
  const TemporaryFolder folder;
  for (int i = 0; i < 2000; ++i) write(folder / ("file" + std::to_string(i)), "text");
  for (const double share : {0.02, 0.2, 0.7}) {
    const double held_out =
        static_cast<double>(open_corpus(folder.path(), share).held_out.size()) / 2000;
    EXPECT_NEAR(held_out, share, 4 * std::sqrt(share * (1 - share) / 2000));
  }
}

TEST(Corpus, ALoneFileIsCutInTwoAtALine) {
  Random random(4);
  for (int trial = 0; trial < 50; ++trial) {
    const TemporaryFolder folder;
    const std::string text = random_text(random, 2000 + random_below(random, 2000));
    write(folder / "inside/text", text);
    const double share = 0.05 + 0.01 * static_cast<double>(random_below(random, 80));
    const fs::path data = trial % 2 == 0 ? folder / "inside/text" : folder / "inside";
    const Corpus corpus = open_corpus(data, share);
    ASSERT_EQ(corpus.training.size(), 1u);
    ASSERT_EQ(corpus.held_out.size(), 1u);
    const Document &training = corpus.training[0], &held_out = corpus.held_out[0];
    EXPECT_EQ(training.begin, 0);
    EXPECT_EQ(training.end, held_out.begin);
    EXPECT_EQ(held_out.end, std::ssize(text));
    const int64_t wanted =
        std::ssize(text) - std::llround(share * static_cast<double>(text.size()));
    const size_t line_end = text.find('\n', static_cast<size_t>(wanted - 1));
    const bool line_begins = line_end != std::string::npos && line_end + 1 < text.size();
    // A line that begins too far on would leave too little.
    const bool near = static_cast<double>(static_cast<int64_t>(line_end) + 1 - wanted) <=
                      std::min(share, 1 - share) / 2 * static_cast<double>(text.size()) - 1;
    const bool far = static_cast<double>(static_cast<int64_t>(line_end) + 1 - wanted) >=
                     std::min(share, 1 - share) / 2 * static_cast<double>(text.size()) + 1;
    if (line_begins && !near && !far) continue;
    EXPECT_EQ(training.end, line_begins && near ? static_cast<int64_t>(line_end) + 1 : wanted);
  }
}

TEST(Corpus, SkipsWhatIsNotText) {
  Random random(5);
  const TemporaryFolder folder;
  write(folder / "a.txt", "text\twith\r\nlines\n");
  write(folder / "b.txt", "caf\xc3\xa9 and caf\xe9\n");
  write(folder / "empty", "");
  write(folder / "zeros", std::string("text\0text", 9));
  write(folder / "random", random_bytes(random, 10'000));
  write(folder / ".hidden/c.txt", "text");
  write(folder / ".d.txt", "text");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const Corpus corpus = open_corpus(folder.path(), 0);
  EXPECT_EQ(names(corpus.training, folder.path()), (std::vector<std::string>{"a.txt", "b.txt"}));
  EXPECT_EQ(corpus.files, 2);
  EXPECT_EQ(corpus.skipped, 3);
}

TEST(Corpus, LinksLeadNeitherAroundNorTwiceToOneFile) {
  const TemporaryFolder folder, outside;
  write(outside / "far.txt", "text from elsewhere");
  write(folder / "a/one.txt", "text");
  fs::create_directory_symlink(folder.path(), folder / "a/up");
  fs::create_directory_symlink(".", folder / "here");
  fs::create_directory_symlink(outside.path(), folder / "outside");
  fs::create_symlink("a/one.txt", folder / "two.txt");
  fs::create_symlink("nowhere", folder / "broken");
  fs::create_symlink("self", folder / "self");
  const Corpus corpus = open_corpus(folder.path(), 0);
  std::multiset<std::string> found;
  for (const Document& document : corpus.training)
    found.insert(fs::canonical(document.path).filename());
  EXPECT_EQ(found, (std::multiset<std::string>{"far.txt", "one.txt"}));
}

TEST(Corpus, TheFingerprintTellsTextsAndSplitsApart) {
  const TemporaryFolder folder;
  std::set<uint64_t> seen;
  const auto differs = [&](double share) {
    EXPECT_TRUE(seen.insert(open_corpus(folder.path(), share).fingerprint).second);
  };
  write(folder / "a", "text one");
  differs(0.1);
  differs(0.2);
  write(folder / "a", "text two");
  differs(0.1);
  write(folder / "b", "text");
  differs(0.1);
  fs::rename(folder / "b", folder / "c");
  differs(0.1);
  write(folder / "c", "text.");
  differs(0.1);
}

TEST(Corpus, WhatCannotBeReadIsAnErrorThatNamesIt) {
  const TemporaryFolder folder;
  const auto sentence = [&](const fs::path& data, double share = 0.1) {
    const std::string words = error_of([&] { open_corpus(data, share); });
    EXPECT_EQ(words.find('\n'), std::string::npos) << words;
    return words;
  };
  const auto has = [](const std::string& words, std::string_view part) {
    EXPECT_NE(words.find(part), std::string::npos) << words;
  };
  has(sentence(folder / "missing"), "No such file");
  has(sentence(folder / "missing"), "missing");
  has(sentence(folder.path()), "holds no files");
  write(folder / "binary/zeros", std::string(100, '\0'));
  has(sentence(folder / "binary"), "holds no text");
  has(sentence(folder / "binary/zeros"), "binary");
  write(folder / "empty", "");
  has(sentence(folder / "empty"), "is empty");
  has(sentence("/dev/null"), "neither");
  for (const double share : {-0.1, 1.0, 1.5, std::nan("")})
    has(sentence(folder.path(), share), "share");

  if (::geteuid() == 0) return;  // to whom nothing is forbidden
  write(folder / "locked/text", "text");
  fs::permissions(folder / "locked/text", fs::perms::none);
  has(sentence(folder / "locked"), "Permission denied");
  fs::permissions(folder / "locked", fs::perms::none);
  has(sentence(folder / "locked"), "Permission denied");
  fs::permissions(folder / "locked", fs::perms::owner_all);
}

}  // namespace
}  // namespace pararnn::data
