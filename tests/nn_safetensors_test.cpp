// safetensors files: what is saved comes back, whatever happens to the bytes is an Error and never
// a crash, and a file that cannot be written leaves the earlier one.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/types.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.hpp"
#include "error_test_support.hpp"
#include "nn/safetensors.hpp"

using namespace pararnn;
using namespace pararnn::nn;
using torch::Tensor;

namespace {

const std::vector<torch::ScalarType> kDtypes{
    torch::kDouble, torch::kFloat, torch::kHalf, torch::kBFloat16, torch::kLong,
    torch::kInt,    torch::kShort, torch::kChar, torch::kByte,     torch::kBool};

class SafetensorsFile : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string bytes() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  void write(std::string_view bytes) const {
    // A new file each time: some file systems bring a file that is cut short to the disk at once.
    std::filesystem::remove(path_);
    std::ofstream(path_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  /// A file of this header and this many bytes of data.
  void write(const std::string& header, size_t data_bytes) const {
    const uint64_t length = header.size();
    std::string whole(sizeof length, '\0');
    std::memcpy(whole.data(), &length, sizeof length);
    write(whole + header + std::string(data_bytes, 'x'));
  }

  /// The sentence of the Error that loading throws.
  std::string error() const {
    return error_of([&] { load_safetensors(path_); });
  }

  void expect_error(const std::string& part) const { expect_holds(error(), part); }

  std::filesystem::path folder_ = std::filesystem::temp_directory_path() /
                                  ("pararnn-" + std::to_string(std::random_device()()));
  std::filesystem::path path_ = folder_ / "file.safetensors";
};

Tensor random_tensor(std::mt19937& random) {
  std::vector<int64_t> shape(random() % 4);
  for (int64_t& size : shape) size = static_cast<int64_t>(random() % 6);
  const auto dtype = kDtypes[random() % kDtypes.size()];
  const Tensor tensor = (torch::randn(shape) * 50).abs().to(dtype);
  return shape.size() >= 2 && random() % 2 ? tensor.transpose(0, 1) : tensor;
}

Safetensors random_contents(std::mt19937& random) {
  Safetensors contents;
  for (size_t i = random() % 6; i > 0; --i) {
    contents.tensors["tensor \"" + std::to_string(i) + "\" é"] = random_tensor(random);
  }
  if (random() % 2) contents.metadata["note"] = "line\n\"quoted\"";
  return contents;
}

TEST_F(SafetensorsFile, GivesBackWhatWasSaved) {
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    const Safetensors contents = random_contents(random);
    save_safetensors(path_, contents);
    const Safetensors loaded = load_safetensors(path_);
    EXPECT_EQ(loaded.metadata, contents.metadata);
    ASSERT_EQ(loaded.tensors.size(), contents.tensors.size());
    for (const auto& [name, tensor] : contents.tensors) {
      ASSERT_TRUE(loaded.tensors.contains(name));
      EXPECT_EQ(loaded.tensors.at(name).scalar_type(), tensor.scalar_type());
      EXPECT_TRUE(torch::equal(loaded.tensors.at(name), tensor));
    }
  }
}

TEST_F(SafetensorsFile, EveryDtypeComesBack) {
  Safetensors contents;
  for (const auto dtype : kDtypes) {
    contents.tensors[torch::toString(dtype)] = torch::tensor({0, 1, 100}).to(dtype);
  }
  save_safetensors(path_, contents);
  const auto loaded = load_safetensors(path_).tensors;
  for (const auto& [name, tensor] : contents.tensors)
    EXPECT_TRUE(torch::equal(loaded.at(name), tensor)) << name;
}

TEST_F(SafetensorsFile, EveryValueLiesAtAMultipleOfItsSize) {
  save_safetensors(path_, {.tensors = {{"a", torch::ones(3, torch::kByte)},
                                       {"b", torch::ones(2, torch::kDouble)}},
                           .metadata = {}});
  const std::string all = bytes();
  uint64_t length = 0;
  std::memcpy(&length, all.data(), sizeof length);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(nlohmann::json::parse(all.substr(8, length))["b"]["data_offsets"][0], 0);
}

TEST_F(SafetensorsFile, EveryTruncationIsAnError) {
  std::mt19937 random(2);
  Safetensors contents = random_contents(random);
  contents.tensors["last"] = torch::ones(5);
  save_safetensors(path_, contents);
  const std::string whole = bytes();
  for (size_t length = 0; length < whole.size(); ++length) {
    write(whole.substr(0, length));
    EXPECT_FALSE(error().empty()) << length;
  }
  write(whole + "x");
  expect_error("bytes");
}

TEST_F(SafetensorsFile, DamageIsAnErrorOrAnotherValueButNeverACrash) {
  std::mt19937 random(3);
  for (int i = 0; i < 3000; ++i) {
    if (i % 100 == 0) save_safetensors(path_, random_contents(random));
    static std::string whole;
    if (i % 100 == 0) whole = bytes();
    std::string damaged = whole;
    for (size_t flips = 1 + random() % 4; flips > 0; --flips) {
      // Mostly in the header, where the structure is.
      const size_t reach = random() % 4 ? std::min<size_t>(damaged.size(), 200) : damaged.size();
      damaged[random() % reach] = static_cast<char>(random());
    }
    write(damaged);
    try {
      load_safetensors(path_);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path_.string()), std::string::npos);
    }
  }
}

TEST_F(SafetensorsFile, WrongHeadersAreRefusedByName) {
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape,
                       offsets);
  };
  write("not json", 0), expect_error("no valid JSON");
  write("[1]", 0), expect_error("no JSON object");
  write(R"({"a":3})", 0), expect_error("tensor 'a' must have dtype, shape and data_offsets");
  write(entry("\"F8\"", "[1]", "[0,1]"), 1), expect_error("unknown dtype \"F8\"");
  write(entry("7", "[1]", "[0,1]"), 1), expect_error("unknown dtype 7");
  write(entry("\"U8\"", "3", "[0,3]"), 3), expect_error("must be a list");
  write(entry("\"U8\"", "[-3]", "[0,3]"), 3), expect_error("no size");
  write(entry("\"U8\"", "[1.5]", "[0,3]"), 3), expect_error("no size");
  write(entry("\"F64\"", "[4294967296,4294967296]", "[0,3]"), 3), expect_error("too large");
  write(entry("\"U8\"", "[99999999999999999999]", "[0,3]"), 3), expect_error("no size");
  write(entry("\"U8\"", "[3]", "[0]"), 3), expect_error("two positions");
  write(entry("\"U8\"", "[3]", "[3,0]"), 3), expect_error("needs 3 bytes");
  write(entry("\"F32\"", "[3]", "[0,3]"), 3), expect_error("needs 12 bytes");
  write(entry("\"U8\"", "[3]", "[1,4]"), 4), expect_error("gap");
  write(entry("\"U8\"", "[3]", "[0,3]"), 2), expect_error("take 3 bytes, but 2 are there");
  write(entry("\"U8\"", "[1000000000000]", "[0,1000000000000]"), 2),
      expect_error("but 2 are there");
  write(
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
      3);
  expect_error("overlaps");
  write(R"({"__metadata__":{"a":1}})", 0), expect_error("metadata");
  write(R"({"__metadata__":[]})", 0), expect_error("metadata");
  write(std::string(8, '\xff')), expect_error("its header should have");
  write(std::string(100000, '['), 0), expect_error("no valid JSON");
  std::filesystem::remove(path_);
  expect_error("cannot read");
  EXPECT_THROW(load_safetensors(folder_), Error);
}

TEST_F(SafetensorsFile, AFileThatCannotBeWrittenLeavesTheEarlierOne) {
  save_safetensors(path_, {.tensors = {{"a", torch::ones(10)}}, .metadata = {}});
  const std::string before = bytes();
  // A limit on the size of files stops the write halfway, as a full disk does.
  rlimit unlimited{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limited = unlimited;
  limited.rlim_cur = 5000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  std::string sentence;
  try {
    save_safetensors(path_, {.tensors = {{"a", torch::ones(100000)}}, .metadata = {}});
  } catch (const Error& error) {
    sentence = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &unlimited);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(sentence, fmt::format("cannot write {}: {}", path_.string(), std::strerror(EFBIG)));
  EXPECT_EQ(bytes(), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1)
      << "something was left beside";
}

TEST_F(SafetensorsFile, WhatIsNotWrittenIsRefusedByName) {
  EXPECT_THROW(save_safetensors(path_, {.tensors = {{"a", torch::ones(1, torch::kComplexFloat)}},
                                        .metadata = {}}),
               Error);
  EXPECT_THROW(
      save_safetensors(path_, {.tensors = {{"__metadata__", torch::ones(1)}}, .metadata = {}}),
      Error);
  EXPECT_THROW(save_safetensors(folder_ / "none" / "file", {}), Error);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
