// The functions of core/math_device.hpp on a GPU, for every float in their range, against those of
// doubles: the errors that the header states are kept.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <string>

#include "base/error.hpp"
#include "jit/kernel.hpp"

namespace pararnn::jit {
namespace {

// The header's constants, which only NVRTC can read, come as results of a kernel.
constexpr const char* kLargestError = R"(
#include "pararnn/core/math.hpp"
namespace pararnn {
constexpr double kWrong = 1e9;  // the error of a wrong special value

#define FUNCTION(Name, name)                                       \
  struct Name {                                                    \
    static constexpr double kBound = kDevice##Name##Ulp;           \
    template <class T> __device__ static T of(T x) { return name(x); } \
  };
FUNCTION(Exp, exp)
FUNCTION(Tanh, tanh)
FUNCTION(Sigmoid, sigmoid)
FUNCTION(Log1p, log1p_unit)
FUNCTION(Log, log)
FUNCTION(Sin, sin)
FUNCTION(Cos, cos)
FUNCTION(Erf, erf)

// Subnormal results may be 0, and those beyond the largest float are infinite.
__device__ double units_in_the_last_place(float got, double right) {
  if (isnan(right)) return isnan(got) ? 0 : kWrong;
  if (fabs(right) < 0x1p-126) return fabs(got) <= 0x1p-126 ? 0 : kWrong;
  if (fabs(right) >= 0x1p128) return isinf(got) && (got > 0) == (right > 0) ? 0 : kWrong;
  const double value = isinf(got) ? copysign(0x1p128, got) : got;
  int exponent;
  frexp(right, &exponent);
  const double error = fabs(value - right) / ldexp(1.0, exponent - 24);
  return error == error ? error : kWrong;
}

// The largest error over all floats of [low, high] and NaN, its bits above those of the argument.
template <class F>
__global__ void largest_error(unsigned long long* largest, double* bound, float low, float high) {
  unsigned long long mine = 0;
  const unsigned long long stride = gridDim.x * blockDim.x;
  for (unsigned long long i = blockIdx.x * blockDim.x + threadIdx.x; i >> 32 == 0; i += stride) {
    const float x = __uint_as_float(static_cast<unsigned>(i));
    if (x < low || x > high) continue;
    const double error = units_in_the_last_place(F::of(x), F::of(static_cast<double>(x)));
    const unsigned long long bits =
        static_cast<unsigned long long>(__float_as_uint(static_cast<float>(error))) << 32 | i;
    if (bits >> 32 > mine >> 32) mine = bits;
  }
  atomicMax(largest, mine);
  *bound = F::kBound;
}
}  // namespace pararnn
)";

void expect_kept(const std::string& function, float low, float high) {
  const Kernel& kernel = get_kernel({kLargestError,
                                     "pararnn::largest_error<pararnn::" + function + ">",
                                     {},
                                     {"--prec-div=false", "--prec-sqrt=false"}});
  struct Found {
    unsigned long long largest;
    double bound;
  } found{};
  Found* on_device = nullptr;
  check_cuda(cudaMalloc(reinterpret_cast<void**>(&on_device), sizeof found), "allocate");
  check_cuda(cudaMemset(on_device, 0, sizeof found), "clear");
  launch(kernel, {.grid = 2048, .block = 256}, &on_device->largest, &on_device->bound, low, high);
  check_cuda(cudaMemcpy(&found, on_device, sizeof found, cudaMemcpyDefault), "copy");
  check_cuda(cudaFree(on_device), "free");
  const auto error = std::bit_cast<float>(static_cast<unsigned>(found.largest >> 32));
  const auto at = std::bit_cast<float>(static_cast<unsigned>(found.largest));
  fmt::print("{}: {} at {}, bound {}\n", function, error, at, found.bound);
  EXPECT_LE(error, found.bound) << function << " at " << at;
  EXPECT_GT(error, 0) << function;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class DeviceMath : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "there is no GPU";
    }
  }
};

TEST_F(DeviceMath, ErrorsAreWithinTheStatedUnits) {
  expect_kept("Exp", -kInfinity, kInfinity);
  expect_kept("Tanh", -kInfinity, kInfinity);
  expect_kept("Sigmoid", -kInfinity, kInfinity);
  expect_kept("Log1p", 0, 1);
  expect_kept("Log", 0, kInfinity);
  expect_kept("Sin", -kInfinity, kInfinity);
  expect_kept("Cos", -kInfinity, kInfinity);
  expect_kept("Erf", -kInfinity, kInfinity);
}

}  // namespace
}  // namespace pararnn::jit
