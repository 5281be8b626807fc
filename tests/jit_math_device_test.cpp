// The functions of core/math_device.hpp and core/approximate.hpp on a GPU, for every float in their
// range, against those of doubles: the errors that the headers state are kept.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <string>

#include "base/error.hpp"
#include "jit/kernel.hpp"

namespace pararnn::jit {
namespace {

// The headers' constants, which only NVRTC can read, come as results of a kernel.
constexpr const char* kSource = R"(
#include "pararnn/core/approximate.hpp"
namespace pararnn {
constexpr double kWrong = 1e9;  // the error of a wrong special value

struct Exp {
  static constexpr double kBound = kDeviceExpUlp;
  template <class T> __device__ static T of(T x) { return exp(x); }
};
struct Tanh {
  static constexpr double kBound = kDeviceTanhUlp;
  template <class T> __device__ static T of(T x) { return tanh(x); }
};
struct Sigmoid {
  static constexpr double kBound = kDeviceSigmoidUlp;
  template <class T> __device__ static T of(T x) { return sigmoid(x); }
};
struct Log1p {
  static constexpr double kBound = kDeviceLog1pUlp;
  template <class T> __device__ static T of(T x) { return log1p_unit(x); }
};
struct Log {
  static constexpr double kBound = 1;
  template <class T> __device__ static T of(T x) { return log(x); }
};
struct SquareRoot {
  static constexpr double kBound = 1;
  template <class T> __device__ static T of(T x) { return sqrt(x); }
};

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
template <class F, bool kApproximate>
__global__ void largest_error(unsigned long long* largest, double* bound, float low, float high) {
  unsigned long long mine = 0;
  const unsigned long long stride = gridDim.x * blockDim.x;
  for (unsigned long long i = blockIdx.x * blockDim.x + threadIdx.x; i >> 32 == 0; i += stride) {
    const float x = __uint_as_float(static_cast<unsigned>(i));
    if (x < low || x > high) continue;
    const double right = F::of(static_cast<double>(x));
    double error;
    if (kApproximate) {
      const float got = F::of(Approximate(x)).value;
      error = fabs(got - right) / (1 + fabs(right));
      if (isnan(right)) error = isnan(got) ? 0 : kWrong;
    } else {
      error = units_in_the_last_place(F::of(x), right);
    }
    const unsigned long long bits =
        static_cast<unsigned long long>(__float_as_uint(static_cast<float>(error))) << 32 | i;
    if (bits >> 32 > mine >> 32) mine = bits;
  }
  atomicMax(largest, mine);
  *bound = kApproximate ? kApproximateError : F::kBound;
}
}  // namespace pararnn
)";

void expect_kept(const std::string& function, bool approximate, float low, float high) {
  const Kernel& kernel = get_kernel(
      {kSource,
       "pararnn::largest_error<pararnn::" + function + (approximate ? ", true>" : ", false>"),
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
  fmt::print("{}{}: {} at {}, bound {}\n", function, approximate ? " of Approximate" : "", error,
             at, found.bound);
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
  expect_kept("Exp", false, -kInfinity, kInfinity);
  expect_kept("Tanh", false, -kInfinity, kInfinity);
  expect_kept("Sigmoid", false, -kInfinity, kInfinity);
  expect_kept("Log1p", false, 0, 1);
}

TEST_F(DeviceMath, ApproximationsAreWithinTheStatedError) {
  expect_kept("Exp", true, -kInfinity, 88);
  expect_kept("Tanh", true, -kInfinity, kInfinity);
  expect_kept("Sigmoid", true, -kInfinity, kInfinity);
  expect_kept("Log1p", true, 0, 1);
  expect_kept("Log", true, 0x1p-126f, 0x1.fffffep127f);
  expect_kept("SquareRoot", true, 0x1p-126f, 0x1p127f);
}

}  // namespace
}  // namespace pararnn::jit
