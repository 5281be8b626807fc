// Where a model is computed: the names of devices, and the same model on a GPU and on the CPU. What
// needs a GPU is skipped on a machine without one.
#include "train/device.hpp"

#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <torch/cuda.h>
#include <torch/utils.h>

#include <cmath>
#include <functional>
#include <map>
#include "cells/cell_registry.hpp"

#include "nn/generate.hpp"
#include "nn/model_files.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"
#include "ops/head_projection/head_projection.hpp"
#include "ops/residual/residual.hpp"
#include "ops/rms_norm/rms_norm.hpp"
#include "ops/swiglu/swiglu.hpp"
#include "train/checkpoint.hpp"
#include "train/device_memory.hpp"
#include "train/memory.hpp"
#include "train/model_sizes.hpp"
#include "train/run_log.hpp"
#include "train/trained_model.hpp"
#include "train/trainer.hpp"
#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

using torch::Tensor;

const torch::Device kCpu(torch::kCPU), kGpu(torch::kCUDA, 0);

TEST(Device, AutoTakesAGpuWhereThereIsOne) {
  EXPECT_EQ(find_device("auto"), torch::cuda::is_available() ? kGpu : kCpu);
  EXPECT_EQ(find_device("cpu"), kCpu);
}

TEST(Device, AGpuThatIsNotThereIsNamedWithTheMend) {
  const int count = torch::cuda::device_count();
  const std::string beyond = fmt::format("cuda:{}", count);
  if (count > 0) {
    EXPECT_EQ(find_device("cuda"), kGpu);
    expect_error([&] { find_device(beyond); },
                 {"--device " + beyond, fmt::format("cuda:{}", count - 1)});
  } else {
    for (const std::string name : {"cuda", "cuda:0", "cuda:12"}) {
      expect_error([&] { find_device(name); }, {"--device " + name, "GPU", "--device cpu"});
    }
  }
}

TEST(Device, DeterministicAlgorithmsAreTheProcesss) {
  use_deterministic_algorithms();
  const bool only = at::globalContext().deterministicAlgorithms();
  const bool warns = at::globalContext().deterministicAlgorithmsWarnOnly();
  at::globalContext().setDeterministicAlgorithms(false, false);
  EXPECT_TRUE(only);
  EXPECT_FALSE(warns);
  EXPECT_FALSE(at::globalContext().deterministicFillUninitializedMemory());
}

TEST(Device, OtherNamesAreRefused) {
  for (const std::string name :
       {"", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:100", "meta"}) {
    EXPECT_FALSE(is_device_name(name));
    expect_error([&] { find_device(name); }, {"--device", '"' + name + '"', "auto", "cuda:1"});
  }
  for (const std::string_view name : {"auto", "cpu", "cuda", "cuda:0", "cuda:15"}) {
    EXPECT_TRUE(is_device_name(name));
  }
}

TEST(Device, IsToldWithItsThreads) {
  const int before = torch::get_num_threads();
  torch::set_num_threads(1);
  EXPECT_EQ(describe(kCpu), "cpu, 1 thread");
  torch::set_num_threads(3);
  EXPECT_EQ(describe(kCpu), "cpu, 3 threads");
  torch::set_num_threads(before);
}

TEST(Device, TokensAreRowMajor) {
  const std::vector<int32_t> tokens{0, 1, 2, 256, 4, 65535};
  EXPECT_TRUE(torch::equal(tokens_on(kCpu, tokens, 2, 3),
                           torch::tensor({{0, 1, 2}, {256, 4, 65535}}, torch::kInt64)));
}

/// |a - b| as a share of |b|, in the Euclidean norm.
double distance(const Tensor& a, const Tensor& b) {
  const Tensor actual = a.detach().to(kCpu, torch::kDouble),
               expected = b.detach().to(kCpu, torch::kDouble);
  return ((actual - expected).norm() / (expected.norm() + 1e-30)).item<double>();
}

/// How far fp32 and bf16 may be apart on two devices, which add in another order.
struct Precision {
  torch::ScalarType dtype;
  double tolerance;
};
const std::vector<Precision> kPrecisions{{torch::kFloat, 1e-4}, {torch::kBFloat16, 0.1}};

class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "no GPU";
    torch::manual_seed(1);
  }
};

using Function = std::function<Tensor(const std::vector<Tensor>&)>;

/// The value of f and its gradients, computed on a device.
std::vector<Tensor> run_on(const torch::Device& device, const Function& f,
                           const std::vector<Tensor>& inputs) {
  std::vector<Tensor> leaves;
  for (const Tensor& input : inputs)
    leaves.push_back(input.detach().to(device).clone().requires_grad_());
  const Tensor y = f(leaves);
  torch::manual_seed(2);
  y.backward(torch::randn(y.sizes()).to(device, y.scalar_type()));
  std::vector<Tensor> results{y};
  for (const Tensor& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

void expect_same_on_both(const Function& f, const std::vector<Tensor>& inputs, double tolerance) {
  const auto actual = run_on(kGpu, f, inputs), expected = run_on(kCpu, f, inputs);
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(actual[i].scalar_type(), expected[i].scalar_type());
    ASSERT_EQ(actual[i].sizes(), expected[i].sizes());
    EXPECT_LE(distance(actual[i], expected[i]), tolerance) << (i ? "gradient " : "value ") << i;
  }
}

TEST_F(OnGpu, ModulesEqualTheCpus) {
  const auto half = [](const Tensor& x) { return x.chunk(2, -1)[1]; };
  for (const auto& [dtype, tolerance] : kPrecisions) {
    SCOPED_TRACE(torch::toString(dtype));
    for (const auto& [batch, steps, width] :
         std::vector<std::array<int64_t, 3>>{{1, 1, 4}, {2, 129, 12}, {3, 70, 600}}) {
      const Tensor stream = torch::randn({batch, steps, width}), weight = torch::randn(width);
      const Tensor branch = torch::randn({batch, steps, width}).to(dtype);
      const Tensor wide = torch::randn({batch, steps, 2 * width}).to(dtype);
      expect_same_on_both([&](const auto& x) { return ops::rms_norm(x[0], x[1], 1e-5, dtype); },
                          {stream, weight}, tolerance);
      expect_same_on_both(
          [&](const auto& x) { return ops::rms_norm(x[0], x[1], 1e-5, dtype, half(x[2])); },
          {branch, weight, wide}, tolerance);
      expect_same_on_both([](const auto& x) { return ops::swiglu(x[0]); }, {wide}, tolerance);
      expect_same_on_both([](const auto& x) { return ops::add_scaled(x[0], x[1], x[2]); },
                          {stream, weight, branch}, tolerance);
      for (const int64_t taps : {1, 4}) {
        expect_same_on_both(
            [&](const auto& x) { return ops::causal_convolution(half(x[0]), x[1], x[2]); },
            {wide, torch::randn({taps, width}), torch::randn({batch, taps - 1, width}).to(dtype)},
            tolerance);
      }
      for (const int64_t heads : {1, 2, 4}) {
        expect_same_on_both([](const auto& x) { return ops::head_projection(x[0], x[1], x[2]); },
                            {branch, torch::randn({heads, 3 * width / heads, width / heads}),
                             torch::randn({heads, 3 * width / heads})},
                            tolerance);
      }
    }
  }
}

TEST_F(OnGpu, AModelOfEveryCellEqualsTheCpus) {
  for (const CellDefinition& cell : built_in_cells()) {
    for (const int64_t heads : {1, 4}) {
      for (const auto& [dtype, tolerance] : kPrecisions) {
        SCOPED_TRACE(fmt::format("{}, {} heads, {}", cell.name, heads, torch::toString(dtype)));
        const nn::ModelConfig config{.vocabulary = 50,
                                     .width = 32,
                                     .layers = 2,
                                     .rnn = {.cell = std::string(cell.name), .heads = heads}};
        const Tensor tokens = torch::randint(config.vocabulary, {2, 300}, torch::kLong);
        const auto results_on = [&](const torch::Device& device, torch::ScalarType compute_dtype) {
          torch::manual_seed(3);
          nn::LanguageModel model(config);
          model->to(device);
          model->to_precision(compute_dtype);
          const Tensor logits = model->forward(tokens.to(device));
          const Tensor targets = tokens.roll(-1, 1).to(device);
          model->loss(tokens.to(device), targets, {.z_loss = 0.01}).first.total.backward();
          std::map<std::string, Tensor> results{{"logits", logits}};
          for (const auto& parameter : model->named_parameters()) {
            results[parameter.key()] = parameter.value().grad();
          }
          return results;
        };
        const auto there = results_on(kGpu, dtype), here = results_on(kCpu, dtype),
                   exact = results_on(kCpu, torch::kFloat);
        for (const auto& [name, expected] : here) {
          // An LSTM's gradients may change by half when its weights change by a thousandth: what
          // rounding may do is told by what it does on the CPU.
          const double sensitivity = 4 * distance(expected, exact.at(name));
          EXPECT_LE(distance(there.at(name), expected), tolerance + sensitivity) << name;
        }
      }
    }
  }
}

TEST_F(OnGpu, GeneratesWhatTheCpuGenerates) {
  const nn::ModelConfig config{.vocabulary = 50, .width = 32, .layers = 2};
  for (const double temperature : {0.0, 1.0}) {
    std::vector<int32_t> texts[2];
    for (const torch::Device& device : {kCpu, kGpu}) {
      torch::manual_seed(4);
      nn::LanguageModel model(config);
      model->to(device, torch::kDouble);
      const std::vector<int32_t> prompt{1, 2, 3, 4, 5};
      nn::generate(model, prompt, 60, {.temperature = temperature, .top_p = 0.9, .seed = 5},
                   [&](int32_t token) {
                     texts[device.is_cuda()].push_back(token);
                     return true;
                   });
    }
    EXPECT_EQ(texts[0].size(), 60u);
    EXPECT_EQ(texts[1], texts[0]);
  }
}

/// Trains on a text of 5000 random bytes.
class TrainsOnGpu : public OnGpu {
 protected:
  TrainsOnGpu() {
    data::Random random(1);
    write(folder_ / "text.txt", data::random_text(random, 5000));
  }

  Trainer make(const torch::Device& device, const fs::path& run = "run") {
    return {config_, model_, data::open_dataset(config_.data, {.held_out_share = config_.held_out}),
            folder_ / run, device};
  }

  TemporaryFolder folder_;
  TrainConfig config_{.data = (folder_ / "text.txt").string(),
                      .batch = 4,
                      .length = 64,
                      .accumulate = 2,
                      .steps = 12,
                      .clip = 0.5,
                      .z_loss = 0.001,
                      .checkpoint_every = 6};
  nn::ModelConfig model_{.width = 32, .layers = 2, .rnn = {.heads = 2, .weight_bound = 0.4}};
};

TEST_F(TrainsOnGpu, TheSeedGivesTheSameWeights) {
  Trainer trainer = make(kGpu), other = make(kGpu);
  const auto weights = nn::parameters_of(trainer.model());
  for (const auto& [name, weight] : nn::parameters_of(other.model())) {
    EXPECT_EQ(weight.device(), kGpu);
    EXPECT_TRUE(torch::equal(weights.at(name), weight)) << name;
  }
}

TEST_F(TrainsOnGpu, ATrainerIsMadeInWhatItKeeps) {
  config_.precision = "bfloat16";
  model_ = {.width = 512, .layers = 8, .tie_embedding = false};
  reset_peak_memory(kGpu);
  // As asked for: what a tensor is given may be up to a mebibyte more.
  const auto peak = [] {
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(kGpu.index());
    return double(stats.requested_bytes[kAll].peak);
  };
  const double before = peak();
  Trainer trainer = make(kGpu);
  const double parameters = parameter_count(trainer.model()->config());
  EXPECT_LT(peak() - before, 1.01 * (2 + 4 + 8) * parameters);
}

TEST_F(TrainsOnGpu, FromTheSameWeightsTheStepsAreTheSame) {
  for (const auto& [precision, tolerance] :
       std::map<std::string, double>{{"float32", 1e-4}, {"bfloat16", 1e-2}}) {
    SCOPED_TRACE(precision);
    config_.precision = precision;
    const auto lock = create_run(folder_ / precision, false);
    ASSERT_EQ(make(kCpu, precision).run(), 0);
    Trainer gpu = make(kGpu, precision), cpu = make(kCpu, precision);
    for (Trainer* trainer : {&gpu, &cpu}) trainer->restore(folder_ / precision / "step-00000006");
    const auto weights = nn::parameters_of(gpu.model());
    for (const auto& [name, weight] : nn::parameters_of(cpu.model())) {
      EXPECT_EQ(weights.at(name).device(), kGpu);
      EXPECT_TRUE(torch::equal(weights.at(name).cpu(), weight)) << name;
    }
    for (int i = 0; i < 5; ++i) {
      const StepReport one = gpu.train_step(), other = cpu.train_step();
      EXPECT_NEAR(one.loss, other.loss, tolerance * other.loss) << "step " << i;
      EXPECT_NEAR(one.gradient_norm, other.gradient_norm, 10 * tolerance * other.gradient_norm);
    }
  }
}

TEST_F(TrainsOnGpu, RepeatsItselfBitForBitByDeterministicAlgorithms) {
  write(folder_ / "text.txt", std::string(100'000, 'a'));
  config_.length = 2048;  // cut into chunks
  config_.precision = "bfloat16";
  use_deterministic_algorithms();
  std::map<std::string, Tensor> first;
  for (int run = 0; run < 2; ++run) {
    Trainer trainer = make(kGpu);
    for (int i = 0; i < 40; ++i) trainer.train_step();  // time to learn plans, if they were learned
    for (const auto& [name, weight] : nn::parameters_of(trainer.model())) {
      first.try_emplace(name, weight.clone());
      EXPECT_TRUE(torch::equal(weight, first.at(name))) << name;
    }
  }
  at::globalContext().setDeterministicAlgorithms(false, false);
}

TEST_F(TrainsOnGpu, GoesOnFromACheckpointOfEitherDevice) {
  for (const torch::Device& first : {kCpu, kGpu}) {
    const fs::path run = first.str();
    const auto lock = create_run(folder_ / run, false);
    ASSERT_EQ(make(first, run).run(), 0);
    for (const torch::Device& second : {kCpu, kGpu}) {
      SCOPED_TRACE(first.str() + " to " + second.str());
      const fs::path copy = fmt::format("{} to {}", first.str(), second.str());
      fs::copy(folder_ / run, folder_ / copy,
               fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      Trainer trainer = make(second, copy);
      trainer.restore(folder_ / copy / "step-00000006");
      const auto stored =
          nn::load_safetensors(folder_ / copy / "step-00000006" / "model.safetensors").tensors;
      for (const auto& [name, weight] : nn::parameters_of(trainer.model())) {
        EXPECT_EQ(weight.device(), second);
        EXPECT_TRUE(torch::equal(weight.cpu(), stored.at(name))) << name;
      }
      EXPECT_EQ(trainer.run(), 0);
      for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
        const auto whole = nn::load_safetensors(folder_ / run / "latest" / file).tensors;
        const auto parts = nn::load_safetensors(folder_ / copy / "latest" / file).tensors;
        ASSERT_EQ(parts.size(), whole.size());
        // Where a gradient is next to nothing, AdamW makes a whole step of its rounding.
        for (const auto& [name, tensor] : whole)
          EXPECT_LE(distance(parts.at(name), tensor), 0.02) << name;
      }
    }
  }
}

TEST_F(TrainsOnGpu, EvaluatesTheSame) {
  const auto lock = create_run(folder_ / "run", false);
  ASSERT_EQ(make(kGpu).run(), 0);
  const data::Dataset dataset = data::open_dataset(config_.data, {.held_out_share = 0});
  Score scores[2];
  for (const torch::Device& device : {kCpu, kGpu}) {
    TrainedModel trained = load_trained_model(folder_ / "run");
    trained.model->to(device);
    scores[device.is_cuda()] = evaluate(trained.model, *dataset.training, *trained.tokenizer,
                                        {.batch = 3, .length = 50, .context = 120});
  }
  EXPECT_EQ(scores[1].tokens, scores[0].tokens);
  EXPECT_EQ(scores[1].bytes, scores[0].bytes);
  EXPECT_NEAR(scores[1].nats, scores[0].nats, 1e-5 * scores[0].nats);
}

TEST_F(TrainsOnGpu, AGraphTrainsAsStepsDoBitForBit) {
  write(folder_ / "text.txt", std::string(60'000, 'a') + "bcd\n" + std::string(60'000, 'e'));
  use_deterministic_algorithms();  // so that plans are the same too
  for (const std::string precision : {"float32", "bfloat16"}) {
    for (const auto& [accumulate, length, documents] :
         std::vector<std::tuple<int64_t, int64_t, bool>>{
             {1, 64, false}, {2, 64, true}, {1, 2048, false}}) {
      SCOPED_TRACE(testing::Message() << precision << " " << accumulate << " " << length);
      config_.precision = precision;
      config_.accumulate = accumulate;
      config_.length = length;
      config_.documents = documents;
      std::map<std::string, Tensor> expected;
      std::vector<double> losses, norms;
      for (const std::string graph : {"off", "auto"}) {
        config_.graph = graph;
        Trainer trainer = make(kGpu);
        for (int step = 0; step < 12; ++step) {
          const StepReport report = trainer.train_step();
          if (graph == "off") {
            losses.push_back(report.loss);
            norms.push_back(report.gradient_norm);
          } else {
            EXPECT_EQ(report.loss, losses[size_t(step)]) << "step " << step;
            EXPECT_EQ(report.gradient_norm, norms[size_t(step)]) << "step " << step;
          }
        }
        EXPECT_EQ(trainer.graph().replays(), graph == "auto");
        EXPECT_EQ(trainer.graph().failure(), "");
        for (const auto& [name, weight] : nn::parameters_of(trainer.model())) {
          expected.try_emplace(name, weight.clone());
          EXPECT_TRUE(torch::equal(weight, expected.at(name))) << name;
        }
      }
    }
  }
  at::globalContext().setDeterministicAlgorithms(false, false);
}

TEST_F(TrainsOnGpu, ALearnedPlanIsCapturedAndARunWithGraphsIsWhole) {
  config_.length = 512;
  config_.steps = 120;
  config_.validate_every = 50;
  config_.checkpoint_every = 50;
  const auto lock = create_run(folder_ / "run", false);
  Trainer trainer = make(kGpu);
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(trainer.graph().failure(), "");
  int64_t steps = 0;
  for (const auto& event : read_run_log(folder_ / "run" / kLogFile)) {
    EXPECT_NE(event["event"], "warning") << event.dump();
    if (event["event"] == "step") steps = event["step"];
  }
  EXPECT_EQ(steps, config_.steps);
}

TEST_F(TrainsOnGpu, AStepOfAGraphThatIsNotFiniteIsSkipped) {
  config_.graph = "auto";
  config_.accumulate = 1;
  Trainer trainer = make(kGpu);
  while (!trainer.graph().replays()) {
    trainer.train_step();
    ASSERT_LT(trainer.step(), 200);
  }
  Tensor weight = trainer.model()->parameters().front();
  const auto copy_of_weights = [&] {
    std::map<std::string, Tensor> copies;
    for (const auto& [name, tensor] : nn::parameters_of(trainer.model()))
      copies[name] = tensor.clone();
    return copies;
  };
  const Tensor kept = weight.detach().clone();
  weight.detach().fill_(std::numeric_limits<float>::quiet_NaN());
  const auto before = copy_of_weights();
  EXPECT_TRUE(trainer.train_step().skipped);
  for (const auto& [name, tensor] : copy_of_weights())
    EXPECT_TRUE(torch::allclose(tensor, before.at(name), 0, 0, /*equal_nan=*/true)) << name;
  weight.detach().copy_(kept);
  EXPECT_FALSE(trainer.train_step().skipped);
  EXPECT_TRUE(trainer.graph().replays());
}

// Else the largest models would no longer fit.
TEST_F(TrainsOnGpu, AGraphTakesNoMoreMemoryThanSteps) {
  model_.width = 256;
  config_.length = 1024;
  config_.accumulate = 1;
  config_.precision = "bfloat16";
  std::map<std::string, double> taken;
  for (const std::string graph : {"off", "auto"}) {
    config_.graph = graph;
    release_cached_memory(kGpu);
    const double before = available_memory(kGpu);
    Trainer trainer = make(kGpu);
    trainer.train_steps(5);
    while (!trainer.graph().settled() && trainer.step() < 300) trainer.train_step();
    EXPECT_EQ(trainer.graph().replays(), graph == "auto");
    release_cached_memory(kGpu);
    if (graph == "off") {
      reset_peak_memory(kGpu);
      trainer.train_step();
      taken[graph] = peak_memory(kGpu);
    } else {
      // All that the process holds, which is what the graph does.
      size_t free = 0, total = 0;
      ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
      taken[graph] = before - double(free);
    }
  }
  EXPECT_LT(taken.at("auto"), 1.3 * taken.at("off") + 64e6);
}

TEST_F(TrainsOnGpu, AProfileSeesTheKernelsOfAGraph) {
  config_.steps = 130;
  config_.checkpoint_every = 0;
  config_.validate_every = 0;
  const auto lock = create_run(folder_ / "run", false);
  Trainer trainer = make(kGpu);
  trainer.profile();
  EXPECT_EQ(trainer.run(), 0);
  for (const auto& event : read_run_log(folder_ / "run" / kLogFile)) {
    if (event["event"] != "profile") continue;
    std::map<std::string, double> parts;
    for (const auto& part : event["parts"]) parts[part["name"]] = part["calls"];
    for (const char* part : {"scan", "products", "fused", "optimizer"})
      EXPECT_GE(parts[part], 1) << part;
    return;
  }
  FAIL() << "no profile";
}

/// While it lives, LibTorch throws on whatever would make the host wait for a GPU.
struct RefuseToWait {
  RefuseToWait() { set(c10::cuda::SyncDebugMode::L_ERROR); }
  ~RefuseToWait() { set(c10::cuda::SyncDebugMode::L_DISABLED); }
  static void set(c10::cuda::SyncDebugMode mode) {
    c10::cuda::warning_state().set_sync_debug_mode(mode);
  }
};

// But for an event behind the loss, which LibTorch does not look at.
TEST_F(TrainsOnGpu, AStepIsQueuedWithoutWaiting) {
  for (const std::string precision : {"float32", "bfloat16"}) {
    config_.precision = precision;
    Trainer trainer = make(kGpu);
    trainer.train_step();  // loads the kernels
    const RefuseToWait refuse;
    EXPECT_ANY_THROW(torch::ones({}, kGpu).cpu());
    EXPECT_NO_THROW(EXPECT_TRUE(std::isfinite(trainer.train_step().loss)));
  }
  config_.steps = 500;
  Trainer trainer = make(kGpu);
  while (!trainer.graph().replays() && trainer.step() < 200) trainer.train_step();
  const RefuseToWait refuse;
  EXPECT_NO_THROW(EXPECT_TRUE(std::isfinite(trainer.train_step().loss)));
  EXPECT_TRUE(trainer.graph().replays());
}

TEST_F(TrainsOnGpu, WhatIsComputedAgainTakesLessMemoryAndWaitsForNothing) {
  config_.precision = "bfloat16";
  config_.plan = "planner";
  config_.batch = 32;
  config_.length = 512;
  model_ = {.width = 128, .layers = 6, .rnn = {.heads = 2}};
  double before = 0, loss = 0;
  for (const std::string recompute : {"none", "mixer", "block"}) {
    SCOPED_TRACE(recompute);
    config_.recompute = recompute;
    reset_peak_memory(kGpu);
    // Each stream that a trainer used leaves workspaces of cuBLAS behind.
    const double of_others = peak_memory(kGpu);
    Trainer trainer = make(kGpu);
    trainer.train_step();  // loads the kernels
    StepReport report;
    {
      const RefuseToWait refuse;
      EXPECT_NO_THROW(report = trainer.train_step());
    }
    const double used = peak_memory(kGpu) - of_others;
    const double reckoned = total_bytes(training_memory(
        trainer.model()->config(), config_, torch::kCUDA, trainer.model()->recompute()));
    fmt::print("{}: {:.1f} MB, reckoned {:.1f}\n", recompute, used / 1e6, reckoned / 1e6);
    EXPECT_LT(reckoned, 1.01 * used);
    if (before > 0) {
      EXPECT_LT(used, 0.8 * before);
      EXPECT_NEAR(report.loss, loss, 1e-2 * loss);
    }
    before = used;
    loss = report.loss;
  }
}

// Flash attention by blocks and sequences keeps more than under no mask.
TEST_F(TrainsOnGpu, AStepWithAttentionToDocumentsTakesAboutWhatIsReckoned) {
  data::Random random(3);
  write(folder_ / "text.txt", data::random_text(random, 60'000));
  config_.precision = "bfloat16";
  config_.graph = "off";
  for (const int64_t length : {256, 2048}) {
    for (const char* mixer : {"attention", "rnn,attention"}) {
      for (const bool documents : {false, true}) {
        SCOPED_TRACE(testing::Message() << mixer << " " << length << " " << documents);
        config_.length = length;
        config_.batch = 32'768 / length;
        config_.documents = documents;
        model_ = {.width = 256, .layers = 6, .mixer = mixer};
        reset_peak_memory(kGpu);
        const double of_others = peak_memory(kGpu);
        Trainer trainer = make(kGpu);
        for (int step = 0; step < 2; ++step) trainer.train_step();
        const double used = peak_memory(kGpu) - of_others;
        const double reckoned = total_bytes(training_memory(
            trainer.model()->config(), config_, torch::kCUDA, trainer.model()->recompute()));
        fmt::print("{} T{}{}: {:.1f} MB, reckoned {:.1f}\n", mixer, length,
                   documents ? ", documents" : "", used / 1e6, reckoned / 1e6);
        EXPECT_LT(reckoned, 1.01 * used);
        EXPECT_GT(reckoned, 0.9 * used);
      }
    }
  }
}

TEST_F(TrainsOnGpu, AStepOfTheRunIsReportedOnce) {
  config_.log_every = 1;
  const data::FolderLock lock = create_run(folder_ / "run", false);
  ASSERT_EQ(make(kGpu).run(), 0);
  std::istringstream lines(read(folder_ / "run" / kLogFile));
  int64_t steps = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    if (event["event"] != "step") continue;
    EXPECT_EQ(event["step"], ++steps);
  }
  EXPECT_EQ(steps, config_.steps);
}

TEST_F(OnGpu, ATensorComesToTheHostWithWhatItHeldWhenItWasSent) {
  const Tensor values = torch::arange(5, torch::device(kGpu).dtype(torch::kDouble));
  const OnItsWayToHost sent(values);
  values.zero_();
  EXPECT_TRUE(torch::equal(sent.wait(), torch::arange(5, torch::kDouble)));
}

}  // namespace
}  // namespace pararnn::train
