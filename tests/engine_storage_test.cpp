// Conversions of half precision: all 65536 values, and the rounding of any float, against a plain
// description of the formats.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "pararnn/cpu/storage.hpp"

namespace pararnn::cpu {
namespace {

/// A binary format with that many bits of exponent and fraction, read by its definition.
struct BinaryFormat {
  int exponent_bits, fraction_bits;

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  double value(std::uint16_t bits) const {
    const int fraction = bits & ((1 << fraction_bits) - 1);
    const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    const double sign = bits >> 15 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias() - fraction_bits);
    return sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias() - fraction_bits);
  }
  /// The nearest, of two the one whose last bit is 0; from half a unit beyond the largest on,
  /// infinity.
  std::uint16_t nearest(float x) const {
    const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const double size = std::abs(double(x));
    const int infinity = ((1 << exponent_bits) - 1) << fraction_bits;
    int low = 0, high = infinity;  // magnitudes are ordered as their bits are
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (value(middle) <= size ? low : high) = middle;
    }
    const double above = high == infinity ? std::ldexp(1, bias() + 1) : value(high);
    const double middle = (value(low) + above) / 2;
    const bool up = size > middle || (size == middle && (low & 1));
    return std::uint16_t(sign | (up ? high : low));
  }
};

constexpr BinaryFormat kFloat16{5, 10}, kBFloat16{8, 7};

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

TEST(EngineStorage, EveryHalfIsReadByItsDefinition) {
  for (int bits = 0; bits < 65536; ++bits) {
    ASSERT_TRUE(same(from_float16(bits), kFloat16.value(bits))) << bits;
    ASSERT_TRUE(same(from_bfloat16(bits), kBFloat16.value(bits))) << bits;
  }
}

TEST(EngineStorage, EveryHalfSurvivesTheRoundTrip) {
  for (int bits = 0; bits < 65536; ++bits) {
    if (std::isnan(from_float16(bits))) {
      ASSERT_TRUE(std::isnan(from_float16(to_float16(from_float16(bits))))) << bits;
    } else {
      ASSERT_EQ(to_float16(from_float16(bits)), bits);
    }
    if (std::isnan(from_bfloat16(bits))) {
      ASSERT_TRUE(std::isnan(from_bfloat16(to_bfloat16(from_bfloat16(bits))))) << bits;
    } else {
      ASSERT_EQ(to_bfloat16(from_bfloat16(bits)), bits);
    }
  }
}

TEST(EngineStorage, FloatsAreRoundedToTheNearest) {
  std::mt19937 generator(1);
  std::vector<float> xs = {0.0f,
                           -0.0f,
                           65504,
                           65519.996f,
                           65520,
                           65536,
                           -65520,
                           INFINITY,
                           -INFINITY,
                           0x1p-24f,
                           0x1p-25f,
                           0x1.000002p-25f,
                           0x1p-26f,
                           std::numeric_limits<float>::max(),
                           std::numeric_limits<float>::min(),
                           std::numeric_limits<float>::denorm_min()};
  for (int i = 0; i < 200000; ++i) {
    const auto random_bits = std::uint32_t(generator());
    float x;
    std::memcpy(&x, &random_bits, sizeof x);  // any float
    if (!std::isnan(x)) xs.push_back(x);
  }
  std::uniform_real_distribution<float> exponent(-27, 17);
  for (int i = 0; i < 200000; ++i) xs.push_back(std::exp2(exponent(generator)));
  // Every boundary between two neighbours, and what lies just beside it.
  for (int bits = 0; bits < 0x7c00; ++bits) {
    const float middle = float((kFloat16.value(bits) + kFloat16.value(bits + 1)) / 2);
    for (const float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      if (std::isfinite(x)) xs.push_back(x);
    }
  }
  for (int bits = 0; bits < 0x7f7f; ++bits) {
    const float middle = float((kBFloat16.value(bits) + kBFloat16.value(bits + 1)) / 2);
    xs.push_back(middle);
    xs.push_back(std::nextafter(middle, 0.0f));
  }
  for (const float x : xs) {
    ASSERT_EQ(to_float16(x), kFloat16.nearest(x)) << std::hexfloat << x;
    ASSERT_EQ(to_bfloat16(x), kBFloat16.nearest(x)) << std::hexfloat << x;
  }
}

TEST(EngineStorage, NotANumberStaysNotANumber) {
  for (const std::uint32_t bits : {0x7fc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu}) {
    const float nan = float_of_bits(bits);
    EXPECT_TRUE(std::isnan(from_float16(to_float16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(from_bfloat16(to_bfloat16(nan)))) << bits;
  }
}

TEST(EngineStorage, RunsKeepValuesInEveryStorage) {
  for (const auto storage :
       {Storage::kFloat16, Storage::kBFloat16, Storage::kFloat32, Storage::kFloat64}) {
    std::vector<unsigned char> memory(8 * 64, 0);
    const std::vector<double> values = {1, -0.5, 3.25, 0, 96};
    store_run(values.data(), 5, memory.data(), storage, 7);
    std::vector<double> read(5);
    load_run(memory.data(), storage, 7, 5, read.data());
    EXPECT_EQ(read, values);
    std::vector<float> single(5);
    load_run(memory.data(), storage, 7, 5, single.data());
    EXPECT_EQ(std::vector<double>(single.begin(), single.end()), values);
  }
}

}  // namespace
}  // namespace pararnn::cpu
