// The GPU kernels of the parts of a model, as the compiler sees them: plans cover every row, and no
// kernel of a usual size spills more than a word.
#include <gtest/gtest.h>

#include "cells/cell_registry.hpp"
#include "jit/kernel.hpp"
#include "ops/cross_entropy/cross_entropy_cuda.hpp"
#include "ops/cross_entropy/cross_entropy_problem.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/decode/decode_attention_cuda.hpp"
#include "ops/decode/decode_attention_problem.hpp"
#include "ops/decode/decode_cuda.hpp"
#include "ops/decode/decode_mamba2_cuda.hpp"

namespace pararnn::ops {
namespace {

TEST(FusedKernels, PlansHoldEveryRow) {
  for (int64_t channels = 1; channels <= kLongestRow; ++channels) {
    for (int access = 1; access <= 8; access *= 2) {
      if (channels % access != 0 || channels / access > kLongestRow / 8) continue;
      const RowPlan plan = plan_rows(channels, access);
      ASSERT_EQ(access % plan.width, 0);
      ASSERT_GE(int64_t(plan.width) * plan.packs * plan.threads, channels);
      ASSERT_LE(plan.width * plan.packs, 16) << channels;
      ASSERT_LE(plan.block_threads(), 1024);
      ASSERT_EQ(plan.block_threads() % plan.threads, 0);
    }
  }
}

/// A word that is spilled once a thread costs nothing to speak of.
constexpr int kSpillBytes = 16;

void expect_no_spills(const jit::KernelSource& source, int bytes = kSpillBytes) {
  const jit::KernelResources found = jit::kernel_resources(jit::compile_cached(source, "sm_90"));
  EXPECT_LE(found.spill_store_bytes + found.spill_load_bytes, bytes) << source.kernel;
  fmt::print("{}: {} registers\n", source.kernel, found.registers);
}
void expect_no_spills(const std::string& file, const std::string& kernel, int bytes = kSpillBytes) {
  expect_no_spills(kernel_source(file, kernel), bytes);
}

TEST(FusedKernels, DoNotSpill) {
  const std::string half(storage_name(torch::kBFloat16)), single(storage_name(torch::kFloat));
  for (const char* pass : {"forward", "backward"}) {
    for (const std::string& stream : {half, single}) {
      expect_no_spills("residual/residual_kernel.hpp",
                       fmt::format("residual_{}<{}, {}, {}, {}>", pass, stream, half, single,
                                   plan_rows(768, 8).arguments()));
      for (const char* parts :
           {"true, pararnn::ops::NormGate::kNone", "false, pararnn::ops::NormGate::kAfter",
            "false, pararnn::ops::NormGate::kBefore"}) {
        const int64_t few = pass == std::string("forward") ? 12 : 8;
        for (const int64_t width : {768, 1024, 2048}) {
          expect_no_spills("rms_norm/rms_norm_kernel.hpp",
                           fmt::format("rms_norm_{}<{}, {}, {}, {}, {}>", pass, stream, half,
                                       single, plan_rows(width, 8, few).arguments(), parts));
        }
      }
    }
    expect_no_spills("swiglu/swiglu_kernel.hpp", fmt::format("swiglu_{}<{}, 8>", pass, half));
    for (const char* shape : {"8, 4, false", "8, 4, true", "4, 8, true"}) {
      expect_no_spills("causal_convolution/causal_convolution_kernel.hpp",
                       fmt::format("convolution_{}<{}, {}, {}>", pass, half, single, shape));
    }
  }
  expect_no_spills(
      "causal_convolution/causal_convolution_kernel.hpp",
      fmt::format("convolution_forward<{}, {}, 8, 4, true, pararnn::ops::ConvolutionEnd::kSilu>",
                  half, single));
  for (const std::string& storage : {half, single}) {
    for (const char* shape : {"4, 4, false", "4, 4, true", "2, 8, true"}) {
      expect_no_spills(
          "causal_convolution/causal_convolution_kernel.hpp",
          fmt::format("convolution_silu_backward<{}, {}, {}>", storage, single, shape));
    }
  }
  expect_no_spills("row_sum/row_sum_kernel.hpp",
                   fmt::format("sum_rows<{}, {}, 1, 32>", single, single));
  expect_no_spills("row_sum/row_sum_kernel.hpp",
                   fmt::format("sum_rows<{}, {}, 8, 8>", half, single));
  expect_no_spills("rotary/rotary_kernel.hpp", fmt::format("rotate_pairs<{}, 8, 32>", half));
  expect_no_spills("rotary/rotary_kernel.hpp", fmt::format("rotate_pairs<{}, 4, 64>", single));
  for (const std::string& weight : {half, single}) {
    for (const int width : {1, 4})
      expect_no_spills("adamw/adamw_kernel.hpp",
                       fmt::format("adamw_update<{}, {}>", weight, width));
  }
}

TEST(FusedKernels, OfSsdDoNotSpill) {
  const char* file = "ssd/ssd_kernel.hpp";
  const std::string half(storage_name(torch::kBFloat16)), single(storage_name(torch::kFloat));
  for (const char* kernel : {"ssd_decays", "ssd_decays_backward"}) expect_no_spills(file, kernel);
  for (const auto& [storage, pack] : {std::pair{half, 8}, {single, 4}}) {
    for (const char* pass : {"", "_backward"}) {
      for (const int chunk : {16, 128}) {
        expect_no_spills(file, fmt::format("ssd_masked{}<{}, {}>", pass, storage, chunk));
      }
      expect_no_spills(file, fmt::format("ssd_carry{}<{}, {}>", pass, storage, pack));
    }
    for (const char* kernel : {"ssd_pack", "ssd_join"}) {
      expect_no_spills(file, fmt::format("{}<{}, {}>", kernel, storage, pack));
    }
    expect_no_spills(file, fmt::format("ssd_join_backward<{}, {}, {}>", storage, pack, 64 / pack));
  }
}

TEST(FusedKernels, OfSsdWithProductsDoNotSpill) {
  // Backward, with registers for two blocks, a few words that the loop over heads keeps.
  constexpr int kBackwardSpillBytes = 48;
  for (const char* sizes : {"128, 64, 128", "32, 64, 128", "128, 32, 32"}) {
    for (const bool backward : {false, true}) {
      expect_no_spills("ssd/ssd_output_kernel.hpp",
                       fmt::format("ssd_output<{}, {}>", sizes, backward),
                       backward ? kBackwardSpillBytes : kSpillBytes);
    }
  }
  for (const char* sizes : {"128, 64", "64, 32", "32, 64"}) {
    expect_no_spills("ssd/ssd_scores_kernel.hpp", fmt::format("ssd_scores_backward<{}>", sizes));
  }
}

TEST(FusedKernels, OfCrossEntropyDoNotSpill) {
  const char* file = "cross_entropy/cross_entropy_kernel.hpp";
  for (const auto dtype : {torch::kBFloat16, torch::kFloat}) {
    const int64_t bytes = int64_t(c10::elementSize(dtype));
    for (const int64_t vocabulary : {257, 32000, 50432, 262144}) {
      const LogitsPlan plan = plan_logits(vocabulary, bytes);
      for (const bool gradient : {false, true}) {
        expect_no_spills(file,
                         fmt::format("cross_entropy_rows<{}, {}, {}, {}>", storage_name(dtype),
                                     plan.threads, plan.held_packs, gradient));
      }
    }
    expect_no_spills(
        file, fmt::format("scale_gradient<{}, {}>", storage_name(dtype), kLogitsPackBytes / bytes));
  }
  for (const char* arguments : {"16, 8", "25, 8", "125, 1"}) {
    expect_no_spills("sample/sample_kernel.hpp", fmt::format("sample_tokens<{}>", arguments));
  }
}

/// The models that are measured: 134M and 1.3B parameters, at batch 1 and 64, on 132
/// multiprocessors.
TEST(FusedKernels, DecodingDoesNotSpill) {
  for (const auto& [width, hidden, vocabulary] :
       {std::array<int64_t, 3>{768, 2048, 32000}, {2048, 5632, 32000}}) {
    for (const int64_t batch : {1, 64}) {
      const auto tiles = [&](int64_t groups, int64_t channels, int64_t heads, int64_t depth) {
        const DecodePlan plan = plan_decode(groups, channels, heads, depth, batch, 132);
        EXPECT_GE(plan.blocks * plan.tiles * plan.columns * 8, channels);
        EXPECT_GE(plan.row_blocks * plan.rows_of_block(), batch);
        return plan.arguments();
      };
      const auto expect = [&](const char* kernel, const std::string& arguments) {
        expect_no_spills("decode/decode_kernel.hpp", fmt::format("{}<{}>", kernel, arguments));
      };
      expect("decode_convolution", tiles(2, width, 1, width));
      expect("decode_residual", tiles(1, width, 1, width));
      expect("decode_swiglu", tiles(2, hidden, 1, width));
      expect("decode_residual", tiles(1, width, 1, hidden));
      expect("decode_logits", tiles(1, vocabulary, 1, width));
      for (const char* cell : {"gru", "lstm_cifg"}) {
        const CellDefinition& definition = find_cell(cell);
        expect_no_spills(
            decode_cell_source(definition, tiles(definition.inputs, width / 4, 4, width / 4)));
      }
    }
  }
  expect_no_spills("decode/decode_kernel.hpp", "decode_embedding");
}

/// Heads of 64 and 128 channels, alone and sharing, at a context of 1k and 32k.
TEST(FusedKernels, DecodingAttentionDoesNotSpill) {
  for (const auto& [width, channels] : {std::array<int64_t, 2>{768, 64}, {2048, 128}}) {
    const int64_t heads = width / channels;
    for (const int64_t key_heads : {heads, heads / 4}) {
      for (const int64_t batch : {1, 64}) {
        expect_no_spills(
            "decode/decode_attention_kernel.hpp",
            fmt::format("decode_attention_input<{}>",
                        plan_decode(2, channels / 2, heads + 2 * key_heads, width, batch, 132)
                            .arguments()));
        for (const int64_t capacity : {1100, 32768}) {
          const AttentionPlan plan =
              plan_decode_attention(batch, heads, key_heads, channels, capacity, 132);
          EXPECT_EQ(heads / key_heads % plan.queries, 0);
          EXPECT_GE(plan.lanes * 8, channels);
          EXPECT_LE(plan.splits, kMostSplits);
          const int64_t blocks = batch * heads / plan.queries * plan.splits;
          EXPECT_GE(blocks, capacity == 32768 ? 4 * 132 : 1) << batch << " rows";
          expect_no_spills("decode/decode_attention_kernel.hpp",
                           fmt::format("decode_attention<{}>", plan.arguments()));
        }
      }
    }
  }
  // As many queries as share what is read.
  expect_no_spills("decode/decode_attention_kernel.hpp", "decode_attention<8, 16>");
}

/// Heads of 64 channels, 128 components.
TEST(FusedKernels, DecodingMamba2DoesNotSpill) {
  const int64_t components = 128;
  for (const int64_t width : {768, 2048}) {
    for (const int64_t batch : {1, 64}) {
      const int64_t channels = 2 * width, rows = 2 * channels + 2 * components + channels / 64;
      expect_no_spills("decode/decode_mamba2_kernel.hpp",
                       fmt::format("decode_mamba2_input<{}>",
                                   plan_decode(1, rows, 1, width, batch, 132).arguments()));
      const Mamba2StatePlan plan = plan_decode_mamba2_state(batch, channels, components, 132);
      EXPECT_GE(plan.blocks * (256 / plan.lanes) * plan.channels, channels);
      EXPECT_GE(plan.lanes * plan.packs * 4, components);
      EXPECT_GE(plan.blocks * batch, 132);
      expect_no_spills("decode/decode_mamba2_kernel.hpp",
                       fmt::format("decode_mamba2_state<{}>", plan.arguments()));
    }
  }
}

}  // namespace
}  // namespace pararnn::ops
