#include "train/memory.hpp"

#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/util/Exception.h>
#include <torch/autograd.h>

#include <cmath>

#include "cells/cell_registry.hpp"
#include "nn/generate.hpp"
#include "nn/language_model.hpp"
#include "nn/presets.hpp"
#include "ops/attention/attention.hpp"
#include "ops/rotary/rotary.hpp"
#include "tensor_memory.hpp"
#include "train/device_memory.hpp"
#include "train/model_sizes.hpp"
#include "train/presets.hpp"
#include "train/trainer.hpp"
#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

nn::ModelConfig random_model(data::Random& random) {
  nn::ModelConfig config;
  if (data::random_below(random, 2) == 0) {
    config.mixer = "mamba2";
    config.mamba2 = {.expand = 1 + data::random_below(random, 3),
                     .head_channels = 1,
                     .state = 1 + data::random_below(random, 9),
                     .conv_width = 1 + data::random_below(random, 5)};
  }
  config.rnn.heads = 1 + data::random_below(random, 4);
  config.width = config.rnn.heads * (1 + data::random_below(random, 30));
  config.vocabulary = 1 + data::random_below(random, 1000);
  config.layers = data::random_below(random, 4);
  config.rnn.conv_width = 1 + data::random_below(random, 5);
  config.mlp_width = data::random_below(random, 2) * (1 + data::random_below(random, 300));
  config.tie_embedding = data::random_below(random, 2) == 0;
  const auto& cells = built_in_cells();
  config.rnn.cell = cells[static_cast<size_t>(data::random_below(random, std::ssize(cells)))].name;
  return config;
}

TEST(Memory, TheParametersCountedAreThoseOfTheModel) {
  data::Random random(1);
  for (int i = 0; i < 40; ++i) {
    const nn::ModelConfig config = random_model(random);
    SCOPED_TRACE(nn::to_json(config).dump());
    nn::LanguageModel model(config);
    double count = 0, tensors = 0;
    nn::Numbers of_mixers;
    for (const auto& item : model->named_parameters()) {
      const auto numbers = static_cast<double>(item.value().numel());
      count += numbers;
      if (!item.key().starts_with("block0.mixer.")) continue;
      const bool decays = model->decays(item.key(), item.value());
      (decays ? of_mixers.in_precision : of_mixers.in_float32) += numbers;
      ++tensors;
    }
    EXPECT_EQ(parameter_count(config), count);
    if (config.layers == 0) continue;
    const nn::MixerSizes sizes = nn::sizes_of_mixers(config).at(0).sizes;
    EXPECT_EQ(sizes.tensors, tensors);
    EXPECT_EQ(sizes.parameters.in_precision, of_mixers.in_precision);
    EXPECT_EQ(sizes.parameters.in_float32, of_mixers.in_float32);
  }
}

TEST(Memory, TheParametersOfPresetsAreThoseTheyAreNamedBy) {
  for (const std::string& name : nn::preset_names()) {
    for (const std::string& mixer : nn::mixer_names()) {
      SCOPED_TRACE(name + " " + mixer);
      nn::ModelConfig config = nn::preset(name, mixer);
      config.vocabulary = name == "7b" ? 50'432 : 32'000;
      nn::LanguageModel model(config, torch::kMeta);
      double count = 0, of_mixers = 0;
      for (const auto& item : model->named_parameters()) {
        const auto numbers = static_cast<double>(item.value().numel());
        count += numbers;
        if (item.key().find(".mixer.") != std::string::npos) of_mixers += numbers;
      }
      EXPECT_EQ(parameter_count(config), count);
      for (const ParameterPart& part : parameters_by_part(config)) {
        if (part.name == mixer) {
          EXPECT_EQ(part.count, of_mixers);
        }
      }
      EXPECT_NO_THROW(with_preset({}, name));
    }
  }
  nn::ModelConfig config = nn::preset("7b");
  config.vocabulary = 50'432;
  EXPECT_NEAR(parameter_count(config), 6.76e9, 0.005e9);
}

// Not above what is used, which would refuse what fits, but for what it reckons a tensor itself to
// take; and not far below.
void expect_about(const MemoryNeed& need, double used, const std::string& what) {
  EXPECT_LT(total_bytes(need), 1.001 * used) << what;
  EXPECT_GT(total_bytes(need), 0.85 * used) << what;
}

class MemoryOfRuns : public testing::Test {
 protected:
  MemoryOfRuns() {
    data::Random random(2);
    write(folder_ / "text.txt", data::random_text(random, 60'000));
    config_.data = folder_ / "text.txt";
    config_.steps = 10;
  }

  /// What a trainer and its first steps take.
  double peak_of_steps(const nn::ModelConfig& model, int64_t steps) {
    return PeakOfTensors::of([&] {
      Trainer trainer(config_, model, data::open_dataset(config_.data), folder_ / "run");
      for (int64_t i = 0; i < steps; ++i) trainer.train_step();
    });
  }

  /// Expects the estimate of a step under config_.recompute to be what it takes, which it returns.
  double expect_estimated_step(const nn::ModelConfig& model) {
    const double used = peak_of_steps(model, 1);
    const MemoryNeed need =
        training_memory(model, config_, torch::kCPU,
                        choose_recompute(model, config_, torch::kCPU, /*available=*/0));
    expect_about(need, used,
                 fmt::format("{} {} {}: {}", config_.precision, nn::to_json(model).dump(),
                             config_.recompute, total_bytes(need) / used));
    return used;
  }

  TemporaryFolder folder_;
  TrainConfig config_;
};

TEST_F(MemoryOfRuns, AStepTakesAboutWhatIsEstimated) {
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const std::string cell : {"gru", "lstm_cifg", "slstm"}) {
      for (const auto& [width, layers, batch, length] :
           {std::array<int64_t, 4>{256, 2, 8, 256}, {64, 4, 16, 512}, {768, 2, 1, 16}}) {
        config_.precision = precision;
        config_.batch = batch;
        config_.length = length;
        nn::ModelConfig model{.width = width, .layers = layers, .rnn = {.cell = cell, .heads = 2}};
        const double used = peak_of_steps(model, 2);
        expect_about(training_memory(model, config_), used,
                     fmt::format("{} {} {} {}: {}", precision, cell, width, length,
                                 total_bytes(training_memory(model, config_)) / used));
      }
    }
  }
}

TEST_F(MemoryOfRuns, AStepOfMamba2TakesAboutWhatIsEstimated) {
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const auto& [width, head_channels, layers, batch, length] :
         {std::array<int64_t, 5>{256, 64, 2, 4, 512},
          {64, 16, 4, 8, 512},
          {128, 64, 2, 2, 2048},
          // Short ones, and one that begins a chunk: of 16, of 64, of two of 128.
          {128, 16, 2, 16, 16},
          {96, 16, 2, 8, 64},
          {128, 16, 2, 8, 130}}) {
      config_.precision = precision;
      config_.batch = batch;
      config_.length = length;
      const nn::ModelConfig model{.width = width,
                                  .layers = layers,
                                  .mixer = "mamba2",
                                  .mamba2 = {.head_channels = head_channels}};
      const double used = peak_of_steps(model, 2);
      expect_about(training_memory(model, config_), used,
                   fmt::format("{} {} {} {}: {}", precision, width, head_channels, length,
                               total_bytes(training_memory(model, config_)) / used));
    }
  }
}

// At no moment is there a second copy of its weights, or of some of them.
TEST_F(MemoryOfRuns, ATrainerIsMadeInWhatItKeeps) {
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const bool tied : {true, false}) {
      config_.precision = precision;
      const nn::ModelConfig model{
          .width = 128, .layers = 6, .tie_embedding = tied, .rnn = {.heads = 2}};
      const data::Dataset dataset = data::open_dataset(config_.data);
      const auto counter = std::make_shared<PeakOfTensors>();
      const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
      const Trainer trainer(config_, model, dataset, folder_ / "run");
      const double parameters = parameter_count(model);
      const double bytes_of_one = precision == "float32" ? 4 + 8 : 2 + 4 + 8;
      EXPECT_LT(counter->now(), 1.02 * bytes_of_one * parameters + 1e5);
      // Of one layer some small vectors are worked out beside it.
      constexpr double kVectors = 10 * 128 * 4;
      EXPECT_LE(counter->peak(), counter->now() + kVectors) << precision << " " << tied;
    }
  }
}

TEST_F(MemoryOfRuns, WhereModelsAreLargeAndBatchesSmallTheGradientsDecide) {
  config_.recompute = "block";
  config_.batch = 1;
  config_.length = 64;
  for (const std::string precision : {"float32", "bfloat16"}) {
    config_.precision = precision;
    const nn::ModelConfig model{.width = 512, .layers = 4, .tie_embedding = false};
    const double used = peak_of_steps(model, 1);
    const MemoryNeed need = training_memory(model, config_, torch::kCPU, {.blocks = 4});
    expect_about(need, used, fmt::format("{}: {}", precision, total_bytes(need) / used));
  }
}

TEST(Memory, OfSevenBillionParametersIsAsByHand) {
  nn::ModelConfig model = nn::preset("7b");
  model.vocabulary = 50'432;
  constexpr double kGibibyte = 1 << 30;
  TrainConfig config{.data = {}, .batch = 8, .length = 2048, .precision = "bfloat16"};
  const auto part = [&](const MemoryNeed& need, const std::string& name) {
    return std::ranges::find(need, name, &MemoryPart::name)->bytes;
  };
  const MemoryNeed need = training_memory(model, config, torch::kCUDA, {.blocks = 32});
  const double parameters = parameter_count(model);
  EXPECT_NEAR(part(need, "weights"), 2 * parameters, 0.001 * parameters);
  EXPECT_NEAR(part(need, "weights in float32"), 4 * parameters, 0.003 * parameters);
  EXPECT_NEAR(part(need, "optimizer states"), 8 * parameters, 0.001 * parameters);
  // Bfloat16 weights and gradients, float32 masters, AdamW's two states: 16 bytes a parameter.
  config.batch = config.length = 1;
  EXPECT_NEAR(total_bytes(training_memory(model, config, torch::kCUDA, {.blocks = 32})) / kGibibyte,
              101, 1);
}

TEST(Memory, TheLargestBatchFitsAndOneMoreDoesNot) {
  for (const torch::DeviceType device : {torch::kCPU, torch::kCUDA}) {
    for (const std::string recompute : kRecomputeNames) {
      for (const double available : {1e9, 7e9, 8e10}) {
        SCOPED_TRACE(fmt::format("{} {}", recompute, available));
        nn::ModelConfig model = nn::preset("134m");
        TrainConfig config{.data = {}, .length = 512, .recompute = recompute};
        const auto need = [&](int64_t batch) {
          config.batch = batch;
          return total_bytes(training_memory(model, config, device,
                                             choose_recompute(model, config, device, available)));
        };
        const int64_t batch = largest_batch(model, config, device, available);
        if (available < 2e9) {
          EXPECT_EQ(batch, 0);
        } else {
          ASSERT_GT(batch, 0);
          EXPECT_LE(need(batch), kShareToFill * available);
        }
        EXPECT_GT(need(batch + 1), kShareToFill * available);
      }
    }
  }
}

TEST_F(MemoryOfRuns, AStepThatComputesAgainTakesAboutWhatIsEstimated) {
  config_.accumulate = 2;
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const auto& [width, mlp_width, layers, batch, length] :
         {std::array<int64_t, 5>{128, 0, 6, 4, 512}, {128, 16, 3, 4, 512}}) {
      config_.precision = precision;
      config_.batch = batch;
      config_.length = length;
      const nn::ModelConfig model{.width = width, .layers = layers, .mlp_width = mlp_width};
      std::vector<double> peaks;
      for (const std::string recompute : {"none", "mixer", "block"}) {
        config_.recompute = recompute;
        peaks.push_back(expect_estimated_step(model));
      }
      EXPECT_LT(peaks[1], peaks[0]);
      EXPECT_LT(peaks[2], peaks[1]);
    }
  }
}

TEST(Memory, AutoComputesAgainAsLittleAsFits) {
  const nn::ModelConfig model{.width = 256, .layers = 7};
  const auto chosen = [&](const char* recompute, double available) {
    return choose_recompute(model, {.data = {}, .recompute = recompute}, torch::kCPU, available);
  };
  const auto need = [&](const nn::RecomputePlan& plan) {
    return total_bytes(training_memory(model, {}, torch::kCPU, plan));
  };
  EXPECT_EQ(chosen("none", 0), nn::RecomputePlan());
  EXPECT_EQ(chosen("mixer", 1e15), (nn::RecomputePlan{.mixers = 7}));
  EXPECT_EQ(chosen("block", 1e15), (nn::RecomputePlan{.blocks = 7}));
  EXPECT_EQ(chosen("auto", 1e15), nn::RecomputePlan());
  EXPECT_EQ(chosen("auto", 0), (nn::RecomputePlan{.blocks = 7}));
  // From much memory to little: each plan fits, gives more than the one before, and comes in turn.
  nn::RecomputePlan last;
  for (double available = 1.2 * need({}); available > 1.2 * need({.blocks = 7});
       available *= 0.97) {
    const nn::RecomputePlan plan = chosen("auto", available);
    EXPECT_LE(need(plan), kShareToFill * available);
    EXPECT_GE(2 * plan.blocks + plan.mixers, 2 * last.blocks + last.mixers);
    if (plan.blocks > 0) {
      EXPECT_EQ(plan.blocks + plan.mixers, 7);
      EXPECT_GT(need({.mixers = 7}), kShareToFill * available);
    }
    if (plan != last) {
      EXPECT_GT(need(last), kShareToFill * available);
    }
    last = plan;
  }
  EXPECT_GT(last.blocks, 0);
  // As many layers as an option takes.
  const nn::ModelConfig deep{.width = 8, .layers = int64_t{1} << 30};
  EXPECT_EQ(choose_recompute(deep, {}, torch::kCPU, 0).blocks, deep.layers);
}

TEST(Memory, PlansAreToldInWords) {
  EXPECT_EQ(describe(nn::RecomputePlan{}, 12), "none");
  EXPECT_EQ(describe({.mixers = 5}, 12), "the mixers of 5 of 12 blocks");
  EXPECT_EQ(describe({.blocks = 3, .mixers = 9}, 12), "3 of 12 blocks, the mixers of 9 more");
}

// The peaks of `pararnn bench train`, in GiB, on one H100 (docs/benchmarks.md).
TEST(Memory, OnAGpuIsWhatWasMeasured) {
  for (const auto& [cell, measured] : {std::pair{"gru", 28.2}, {"lstm_cifg", 28.5}}) {
    nn::ModelConfig model = nn::preset("134m");
    model.rnn.cell = cell;
    model.vocabulary = 32000;
    const TrainConfig config{.data = {}, .batch = 32, .length = 2048, .precision = "bfloat16"};
    const double share =
        total_bytes(training_memory(model, config, torch::kCUDA)) / (measured * double(1 << 30));
    EXPECT_LT(share, 1.002) << cell;
    EXPECT_GT(share, 0.98) << cell;
  }
  struct Measured {
    const char* preset;
    int64_t batch, length;
    nn::RecomputePlan plan;
    double peak;
  };
  for (const Measured& measured : {Measured{"1b", 8, 2048, {}, 52.6},
                                   {"400m", 32, 2048, {.mixers = 3}, 70.3},
                                   {"134m", 1, 1 << 20, {.blocks = 10, .mixers = 2}, 62.4}}) {
    nn::ModelConfig model = nn::preset(measured.preset);
    model.vocabulary = 32000;
    const TrainConfig config{
        .data = {}, .batch = measured.batch, .length = measured.length, .precision = "bfloat16"};
    const double share = total_bytes(training_memory(model, config, torch::kCUDA, measured.plan)) /
                         (measured.peak * double(1 << 30));
    EXPECT_LT(share, 1.002) << measured.preset;
    EXPECT_GT(share, 0.97) << measured.preset;
  }
}

TEST_F(MemoryOfRuns, AnEvaluationTakesAboutWhatIsEstimated) {
  const data::Dataset dataset = data::open_dataset(config_.data, {.held_out_share = 0});
  for (const auto precision : {torch::kFloat32, torch::kBFloat16}) {
    for (const auto& [width, batch, length, context] : {std::array<int64_t, 4>{256, 8, 256, 0},
                                                        {64, 1'000'000, 512, 2048},
                                                        {64, 1, 1 << 15, 0}}) {
      const nn::ModelConfig config{.width = width, .layers = 2};
      const EvaluationOptions options{.batch = batch, .length = length, .context = context};
      nn::LanguageModel model(config);
      model->to_precision(precision);
      const double used = PeakOfTensors::of(
          [&] { evaluate(model, *dataset.training, *dataset.tokenizer, options); });
      const MemoryNeed need =
          evaluation_memory(config, options, precision, dataset.training->size());
      expect_about(need, used,
                   fmt::format("{} {} {} {}", width, batch, length, total_bytes(need) / used));
    }
  }
}

TEST(Memory, TheParametersOfAttentionCountedAreThoseOfTheModel) {
  for (const auto& [heads, key_value_heads] : {std::pair{0, 0}, {4, 2}, {8, 1}}) {
    const nn::ModelConfig config{.width = 128,
                                 .layers = 4,
                                 .mixer = "attention,rnn",
                                 .attention = {.heads = heads, .key_value_heads = key_value_heads}};
    nn::LanguageModel model(config);
    double count = 0, of_mixer = 0;
    for (const auto& item : model->named_parameters()) {
      const auto numbers = static_cast<double>(item.value().numel());
      count += numbers;
      if (!item.key().starts_with("block0.mixer.")) continue;
      EXPECT_TRUE(model->decays(item.key(), item.value()));
      of_mixer += numbers;
    }
    EXPECT_EQ(parameter_count(config), count);
    const nn::MixerSizes sizes = nn::sizes_of_mixers(config).at(0).sizes;
    EXPECT_EQ(sizes.tensors, 2);
    EXPECT_EQ(sizes.parameters.in_precision, of_mixer);
    EXPECT_EQ(sizes.parameters.in_float32, 0);
  }
}

/// Models with attention, alone and beside recurrent layers.
const std::vector<nn::ModelConfig> kModelsWithAttention{
    {.width = 256, .layers = 2, .mixer = "attention"},
    {.width = 128, .layers = 4, .mixer = "attention", .mlp_width = 16},
    {.width = 128,
     .layers = 3,
     .mixer = "attention",
     .attention = {.heads = 4, .key_value_heads = 1}},
    {.width = 128, .layers = 8, .mixer = "rnn*3,attention"},
    {.width = 128, .layers = 6, .mixer = "attention,mamba2*2"},
};

TEST_F(MemoryOfRuns, AStepWithAttentionTakesAboutWhatIsEstimated) {
  config_.batch = 4;
  config_.length = 512;
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const nn::ModelConfig& model : kModelsWithAttention) {
      for (const std::string recompute : {"none", "mixer", "block"}) {
        config_.precision = precision;
        config_.recompute = recompute;
        expect_estimated_step(model);
      }
    }
  }
}

// All layers share one mask, of a number for each token and each of its row.
TEST_F(MemoryOfRuns, AStepWithAttentionToDocumentsTakesAboutWhatIsEstimated) {
  config_.batch = 2;
  config_.length = 2048;
  config_.documents = true;
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const char* mixer : {"attention", "rnn,attention"}) {
      for (const std::string recompute : {"none", "block"}) {
        config_.precision = precision;
        config_.recompute = recompute;
        expect_estimated_step({.width = 64, .layers = 4, .mixer = mixer});
      }
    }
  }
}

// Flash attention's form for different lengths as to what it keeps: its result, and a denominator
// of each softmax.
torch::Tensor attend_as_one(const torch::Tensor& queries, const torch::Tensor& keys,
                            const torch::Tensor& values, const ops::Sequences&) {
  const auto by_head = [](const torch::Tensor& x) { return x.unsqueeze(0).transpose(1, 2); };
  return at::scaled_dot_product_attention(by_head(queries), by_head(keys), by_head(values), {}, 0,
                                          /*is_causal=*/true)
      .transpose(1, 2)
      .squeeze(0);
}

// On a GPU the mask of documents is in parts.
TEST(Memory, OfAttentionInPartsIsWhatIsEstimated) {
  constexpr int64_t kBatch = 3, kHeads = 4, kChannels = 16;
  const nn::ModelConfig config{
      .width = kHeads * kChannels, .mixer = "attention", .attention = {.heads = kHeads}};
  for (const int64_t steps : {200, 256, 300, 1024}) {
    const auto sizes_of = [&](bool documents) {
      const auto on_gpu = torch::dtype(torch::kBFloat16).device(torch::kCUDA);
      return nn::sizes_of_mixers(config, {on_gpu, steps, documents}).at(0).sizes;
    };
    const nn::MixerSizes apart = sizes_of(true), whole = sizes_of(false);
    const double tokens = double(kBatch * steps);
    const torch::Tensor reset = torch::rand({kBatch, steps}) < 0.01;
    const ops::AttentionMask mask = ops::mask_in_parts(
        ops::positions_of(steps, torch::kCPU, {}, reset), kBatch, steps, true, torch::kFloat);
    EXPECT_EQ(double(mask.of_blocks.numel()), tokens * apart.mask_of_token);
    EXPECT_EQ(whole.mask_of_token, 0);
    std::vector<torch::Tensor> inputs;
    for (int i = 0; i < 3; ++i)
      inputs.push_back(torch::randn({kBatch, steps, kHeads, kChannels}).requires_grad_());
    /// Numbers for each token.
    struct Taken {
      double kept, backward, held;
    };
    const auto taken_under = [&](const ops::AttentionMask& under) {
      const auto attend = [&] {
        return ops::causal_attention(inputs[0], inputs[1], inputs[2], under, &attend_as_one);
      };
      Taken taken{};
      taken.held = PeakOfTensors::of([&] {
        const torch::NoGradGuard no_grad;
        attend();
      });
      const auto counter = std::make_shared<PeakOfTensors>();
      const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
      const torch::Tensor y = attend();
      taken.kept = counter->now();
      torch::autograd::grad({(2 * y).sum()}, inputs);
      taken.backward = counter->peak() - taken.kept;
      for (double* bytes : {&taken.kept, &taken.backward, &taken.held}) *bytes /= 4 * tokens;
      return taken;
    };
    const Taken in_parts = taken_under(mask), as_one = taken_under({});
    const auto more = [](const nn::Numbers& numbers, const nn::Numbers& of_whole) {
      return numbers.in_precision - of_whole.in_precision + numbers.in_float32 -
             of_whole.in_float32;
    };
    constexpr double kDenominators = 2 * kHeads;
    EXPECT_NEAR(more(apart.kept, whole.kept), in_parts.kept - as_one.kept, kDenominators);
    const double backward = more(apart.backward, whole.backward);
    const double used_backward = in_parts.backward - as_one.backward;
    // Without the norm and its product, 4 d, which are not made here. LibTorch's attention has
    // workspaces on a CPU, beside which a single result does not count.
    const double held = apart.held.in_precision - 4.0 * config.width;
    if (steps == 300) {  // copied into whole blocks, which is counted where it stays alone
      EXPECT_LT(backward, used_backward);
    } else {
      EXPECT_NEAR(backward, used_backward, kDenominators);
    }
    if (steps == 1024) {
      EXPECT_NEAR(held, in_parts.held, kDenominators);
    } else {
      EXPECT_LT(held, in_parts.held);
    }
  }
}

TEST_F(MemoryOfRuns, ReadingWithAttentionTakesAboutWhatIsEstimated) {
  const data::Dataset dataset = data::open_dataset(config_.data, {.held_out_share = 0});
  for (const nn::ModelConfig& config : kModelsWithAttention) {
    const std::string model_text = nn::to_json(config).dump();
    nn::LanguageModel model(config);
    const auto evaluated = [&](const EvaluationOptions& options) {
      return PeakOfTensors::of(
          [&] { evaluate(model, *dataset.training, *dataset.tokenizer, options); });
    };
    const auto estimated = [&](const EvaluationOptions& options) {
      return evaluation_memory(config, options, torch::kFloat32, dataset.training->size());
    };
    const EvaluationOptions whole{.batch = 8, .length = 512, .tokens = 4096};
    expect_about(estimated(whole), evaluated(whole), model_text);
    // In pieces, of which the last may be short, and of documents, under a mask.
    for (const EvaluationOptions& masked :
         {EvaluationOptions{.batch = 4, .length = 128, .context = 1024, .tokens = 4096},
          {.batch = 2, .length = 512, .context = 2100, .tokens = 4200},
          {.batch = 1, .length = 2048, .documents = true, .tokens = 2048}}) {
      expect_about(estimated(masked), evaluated(masked),
                   fmt::format("{} {} {}", masked.length, masked.context, model_text));
    }

    const std::vector<std::vector<int32_t>> prompts(7, std::vector<int32_t>(200, 5));
    const double used = PeakOfTensors::of(
        [&] { nn::generate(model, prompts, 60, {}, [](int64_t, int32_t) { return true; }); });
    expect_about(generation_memory(config, torch::kFloat32, 200, 7, 60), used,
                 "generated: " + model_text);
  }
}

TEST(Memory, WhatClearlyCannotFitIsOneSentenceAboutTheLargestCause) {
  constexpr double kHave = 64e9;
  const auto refused = [&](const nn::ModelConfig& model, TrainConfig config,
                           std::initializer_list<std::string_view> words) {
    expect_error([&] { require_memory(training_memory(model, config), "cpu", kHave); }, words);
  };
  refused({.width = 1'000'000'000}, {}, {"optimizer states", "64 GB", "--width"});
  refused({.mlp_width = (int64_t{1} << 31) - 1}, {}, {"--mlp-width"});
  refused({.layers = 1'000'000'000}, {}, {"--layers"});
  refused({.rnn = {.conv_width = (int64_t{1} << 31) - 1}}, {}, {"weights"});
  refused({}, {.data = "text", .batch = 1'000'000'000'000'000}, {"activations", "--batch"});
  // What can be computed again is a mend, unless all is.
  refused({.layers = 8}, {.data = {}, .batch = 10'000'000},
          {"activations", "--batch", "--recompute block"});
  const MemoryNeed least =
      training_memory({.layers = 8}, {.data = {}, .batch = 10'000'000}, torch::kCPU, {.blocks = 8});
  EXPECT_EQ(error_of([&] { require_memory(least, "cpu", kHave); }).find("--recompute"),
            std::string::npos);
  // The products of these sizes are beyond 64 bits.
  refused({.width = 1 << 30},
          {.data = "text", .batch = int64_t{1} << 49, .length = int64_t{1} << 49}, {"--batch"});
  expect_error(
      [&] { require_memory(scan_memory("gru", 1 << 24, 1 << 24, 1 << 24, 4), "cpu", kHave); },
      {"sequences", "batch"});
  const nn::ModelConfig usual{.width = 768, .layers = 12};
  EXPECT_NO_THROW(require_memory(training_memory(usual, {}), "cpu", kHave));
}

TEST(Memory, TheHostHasWhatIsFreeWithinTheLimitsOfItsGroups) {
  const TemporaryFolder folder;
  const fs::path proc = folder / "proc", groups = folder / "cgroup";
  const auto available = [&] { return available_host_memory(proc, groups); };
  EXPECT_TRUE(std::isinf(available()));  // a system that says nothing
  write(proc / "meminfo", "MemTotal: 900 kB\nMemAvailable:   800 kB\nSwapFree: 0 kB\n");
  EXPECT_EQ(available(), 800 * 1024);
  // Version 2: a group, and the one above it.
  write(proc / "self/cgroup", "0::/jobs/one\n");
  write(groups / "jobs/one/memory.max", "max\n");
  EXPECT_EQ(available(), 800 * 1024);
  write(groups / "jobs/memory.max", "500000\n");
  write(groups / "jobs/memory.current", "300000\n");
  EXPECT_EQ(available(), 200'000);
  write(groups / "jobs/memory.stat", "anon 5\nactive_file 60000\ninactive_file 40000\n");
  EXPECT_EQ(available(), 300'000);
  write(groups / "jobs/one/memory.max", "250000\n");
  EXPECT_EQ(available(), 250'000);
  // Version 1, beside other controllers.
  write(proc / "self/cgroup", "5:cpu,cpuacct:/\n4:memory:/box\n");
  write(groups / "memory/box/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(available(), 800 * 1024);
  write(groups / "memory/memory.limit_in_bytes", "1000\n");
  EXPECT_EQ(available(), 1000);
  write(proc / "meminfo", "MemAvailable:   800 kB\nSwapFree: 7 kB\n");
  EXPECT_EQ(available(), 1000 + 7 * 1024);
  EXPECT_GT(available_memory(torch::kCPU), 1e6);
}

TEST(Memory, AnAllocationThatFailsIsAnErrorAndASentence) {
  // With libsentencepiece's variables over libc10's it aborted.
  const auto ask = [] { torch::empty({int64_t{1} << 50}); };
  EXPECT_THROW(ask(), c10::Error);
  const MemoryNeed little{{"data", 1, "--batch"}};
  expect_error([&] { run_within_memory(little, torch::kCPU, ask); },
               {"not enough memory", "data", "--batch"});
  expect_error([&] { run_within_memory(little, torch::kCPU, [] { throw std::bad_alloc(); }); },
               {"not enough memory"});
  // Other exceptions stay what they are.
  EXPECT_THROW(run_within_memory(little, torch::kCPU, [] { throw std::out_of_range("it"); }),
               std::out_of_range);
}

}  // namespace
}  // namespace pararnn::train
