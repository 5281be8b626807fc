#include "jit/nvrtc.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <pararnn/cells.hpp>

#include "base/error.hpp"
#include "jit/cubin.hpp"

namespace pararnn::jit {
namespace {

constexpr const char* kArchitectures[] = {"sm_80", "sm_90", "sm_100"};

// All that the engine derives from a cell: the step, its linearization and its derivatives.
constexpr const char* kDerivatives = R"(
#include "pararnn/cells.hpp"
#include "pararnn/core/affine.hpp"
using namespace pararnn;

template <class C, class T>
__global__ void derive(const T* in, T* out) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const auto read = [&]<int N>(Vec<T, N>& vec) {
    static_for<N>([&](auto i) { vec[i] = in[i * blockDim.x + threadIdx.x]; });
    in += N * blockDim.x;
  };
  const auto write = [&]<int N>(const Vec<T, N>& vec) {
    static_for<N>([&](auto i) { out[i * blockDim.x + threadIdx.x] = vec[i]; });
    out += N * blockDim.x;
  };
  Vec<T, S> h, lambda;
  Vec<T, U> u;
  Vec<T, P> w;
  read(h), read(lambda), read(u), read(w);
  write(next_state<C>(h, u, w));
  const auto linearized = linearize<C>(h, u, w, identity<T, S>());
  write(Affine<T, S>{linearized.product, linearized.next}(lambda));
  const auto gradients = vjp<C>(h, u, w, lambda);
  write(gradients.h), write(gradients.u), write(gradients.w);
}
)";

struct CellOnGpu : testing::TestWithParam<
                       std::tuple<std::pair<const char*, const char*>, const char*, const char*>> {
};

TEST_P(CellOnGpu, CompilesWithoutSpills) {
  const auto [cell, arithmetic, architecture] = GetParam();
  const CompiledKernel kernel =
      compile({kDerivatives, fmt::format("derive<{}, {}>", cell.second, arithmetic)},
              engine_headers(), architecture);
  EXPECT_TRUE(
      kernel.code.starts_with("\x7f"
                              "ELF"));
  const KernelResources resources = kernel_resources(kernel);
  fmt::print("{:10} {:6} {:6}: {:3} registers\n", cell.first, arithmetic, architecture,
             resources.registers);
  EXPECT_GT(resources.registers, 0);
  EXPECT_EQ(resources.stack_bytes, 0) << kernel.log;
  EXPECT_EQ(resources.spill_store_bytes, 0) << kernel.log;
  EXPECT_EQ(resources.spill_load_bytes, 0) << kernel.log;
  EXPECT_EQ(kernel.log.find("warning"), std::string::npos) << kernel.log;
}

constexpr std::pair<const char*, const char*> kCells[] = {
#define CELL(name, Type) {#name, #Type},
    PARARNN_CELLS(CELL)
#undef CELL
};

std::string case_name(const testing::TestParamInfo<CellOnGpu::ParamType>& info) {
  const auto& [cell, arithmetic, architecture] = info.param;
  return fmt::format("{}_{}_{}", cell.first, arithmetic, architecture);
}

INSTANTIATE_TEST_SUITE_P(Some, CellOnGpu,
                         testing::Combine(testing::ValuesIn(kCells),
                                          testing::Values("float", "double"),
                                          testing::Values("sm_90")),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Every, CellOnGpu,
                         testing::Combine(testing::ValuesIn(kCells),
                                          testing::Values("float", "double"),
                                          testing::ValuesIn(kArchitectures)),
                         case_name);

TEST(Nvrtc, SameSourceGivesTheSameCode) {
  const KernelSource source{kDerivatives, "derive<Gru, float>"};
  EXPECT_EQ(compile(source, engine_headers(), "sm_90").code,
            compile(source, engine_headers(), "sm_90").code);
}

TEST(Nvrtc, ErrorsNameTheFileAndTheLineOfTheUser) {
  const KernelSource source{.text = "#include \"/home/user/leaky.hpp\"\n",
                            .kernel = "run<Leaky>",
                            .headers = {{"/home/user/leaky.hpp",
                                         "struct Leaky {};\n"
                                         "template <class C> __global__ void run(float* x) {\n"
                                         "  *x = C::leak();\n"
                                         "}\n"}}};
  try {
    compile(source, engine_headers(), "sm_90");
    FAIL() << "compiled";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_TRUE(what.starts_with("run<Leaky> does not compile for sm_90")) << what;
    EXPECT_NE(what.find("/home/user/leaky.hpp(3): error"), std::string::npos) << what;
    EXPECT_NE(what.find("*x = C::leak();"), std::string::npos) << what;
  }
}

TEST(Nvrtc, ErrorsOfOtherKindsAreErrorsToo) {
  const std::string text = "__global__ void run(float* x) { *x = 1; }\n";
  EXPECT_NO_THROW(compile({text, "run"}, {}, "sm_90"));
  EXPECT_THROW(compile({text, "run"}, {}, "sm_12345"), Error);
  EXPECT_THROW(compile({text, "another"}, {}, "sm_90"), Error);
  EXPECT_THROW(compile({text, "run", {}, {"--no-such-option"}}, {}, "sm_90"), Error);
  EXPECT_THROW(compile({"#include \"none.hpp\"\n" + text, "run"}, {}, "sm_90"), Error);
}

TEST(Nvrtc, ResourcesAreTheKernels) {
  // A block of 1024 threads leaves 64 registers to each: one that keeps more numbers must spill.
  const std::string text = R"(
template <int N> __global__ void __launch_bounds__(1024) reverse(const float* in, float* out) {
  __shared__ float first[N];
  float x[N];
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = in[i * 1024 + threadIdx.x];
  first[threadIdx.x % N] = x[0];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; ++i) out[i * 1024 + threadIdx.x] = x[N - 1 - i] + first[i];
})";
  const auto resources = [&](int n) {
    return kernel_resources(compile({text, fmt::format("reverse<{}>", n)}, {}, "sm_90"));
  };
  const KernelResources small = resources(8), large = resources(128);
  EXPECT_EQ(small.shared_bytes, 8 * 4);
  EXPECT_EQ(small.spill_store_bytes, 0);
  EXPECT_EQ(large.shared_bytes, 128 * 4);
  EXPECT_GT(large.registers, small.registers);
  EXPECT_LE(large.registers, 64);
  EXPECT_GE(large.spill_store_bytes, (128 - 64) * 4);
  EXPECT_GE(large.spill_load_bytes, large.spill_store_bytes);
  EXPECT_GE(large.stack_bytes, large.spill_store_bytes);
}

TEST(Nvrtc, ResourcesThatTheLogDoesNotTellAreAnError) {
  CompiledKernel kernel = compile({"__global__ void run() {}", "run"}, {}, "sm_90");
  EXPECT_NO_THROW(kernel_resources(kernel));
  for (const char* log : {"", "ptxas: all is well", "Compiling entry function '_Z3runv'"}) {
    kernel.log = log;
    EXPECT_THROW(kernel_resources(kernel), Error) << log;
  }
}

TEST(Cubin, TellsTheParametersOfAKernel) {
  const std::string text = R"(
template <int N> struct Bytes { char bytes[N]; };
template <int N> __global__ void use(char a, double b, Bytes<N> c, short d, const float* e) {}
__global__ void bare() {})";
  for (const char* architecture : kArchitectures) {
    for (const size_t n : {1, 3, 100, 4000, 4096, 5000, 20001}) {
      const CompiledKernel kernel = compile({text, fmt::format("use<{}>", n)}, {}, architecture);
      EXPECT_EQ(parameter_bytes(kernel.code, kernel.symbol), (std::vector<size_t>{1, 8, n, 2, 8}))
          << architecture;
      EXPECT_THROW(parameter_bytes(std::string_view(kernel.code).substr(0, 100), kernel.symbol),
                   Error);
    }
    const CompiledKernel kernel = compile({text, "bare"}, {}, architecture);
    EXPECT_EQ(parameter_bytes(kernel.code, kernel.symbol), std::vector<size_t>{});
  }
}

}  // namespace
}  // namespace pararnn::jit
