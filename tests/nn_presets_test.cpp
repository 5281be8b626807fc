// The models that have names, with each mixer that there is.
#include "nn/presets.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "error_test_support.hpp"
#include "nn/language_model.hpp"
#include "nn/mixer.hpp"
#include "tensor_memory.hpp"

namespace pararnn::nn {
namespace {

/// Of the mean block, without norms and scales.
double parameters_of_block(const ModelConfig& config) {
  double mixers = 0;
  for (const MixerLayers& mixer : sizes_of_mixers(config)) {
    const Numbers& of_layer = mixer.sizes.parameters;
    mixers += mixer.layers * (of_layer.in_precision + of_layer.in_float32);
  }
  return mixers / double(config.layers) + 3.0 * double(config.width * config.hidden_width());
}

TEST(Presets, AreModelsWithEachMixer) {
  std::vector<std::string> patterns = mixer_names();
  for (const std::string& other : mixer_names()) patterns.push_back("rnn*3," + other);
  for (const std::string& name : preset_names()) {
    for (const std::string& pattern : patterns) {
      SCOPED_TRACE(name + " " + pattern);
      const ModelConfig config = preset(name, pattern);
      EXPECT_NO_THROW(validate(config));
      EXPECT_EQ(config.mixer, pattern);
      EXPECT_FALSE(config.tie_embedding);
      EXPECT_EQ(config.mlp_width % 256, 0);
      EXPECT_EQ(config.rnn.weight_bound, 0.5);
      const double square = double(config.width) * double(config.width);
      EXPECT_LT(parameters_of_block(config), 12.7 * square);
      EXPECT_GT(parameters_of_block(config), 11.4 * square);
    }
  }
  expect_holds(error_of([] { preset("13b"); }), "there is no preset '13b': there are 134m");
}

TEST(Presets, HaveTheirSizes) {
  const std::vector<std::array<int64_t, 4>> sizes{{768, 12, 4, 2048},
                                                  {1024, 24, 4, 2816},
                                                  {2048, 24, 4, 5632},
                                                  {2560, 32, 2, 6912},
                                                  {4096, 32, 4, 11008}};
  const std::vector<std::string> names = preset_names();
  ASSERT_EQ(names.size(), sizes.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const ModelConfig config = preset(names[i]);
    EXPECT_EQ((std::array{config.width, config.layers, config.rnn.heads, config.mlp_width}),
              sizes[i])
        << names[i];
  }
}

// A mixer of more than 5d² parameters, here by its convolution, takes them from the MLP.
TEST(Presets, NarrowTheMlpBesideALargeMixer) {
  for (const std::string& name : preset_names()) {
    const ModelConfig usual = preset(name);
    const double square = double(usual.width) * double(usual.width);
    int64_t before = usual.mlp_width;
    for (const double share : {0.1, 1.5, 2.0, 4.0, 7.0}) {
      ModelConfig config = usual;
      config.rnn.conv_width += int64_t(share * double(config.width));
      config.mlp_width = preset_mlp_width(config);
      EXPECT_LE(config.mlp_width, before) << name << " " << share;
      EXPECT_EQ(config.mlp_width % 256, 0);
      if (share > 1) {  // above 12d² only by the rounding of the width
        EXPECT_LT(parameters_of_block(config), 12 * square + 3.0 * 256 * double(config.width));
        EXPECT_GE(parameters_of_block(config), 12 * square);
      } else {
        EXPECT_EQ(config.mlp_width, usual.mlp_width);
      }
      before = config.mlp_width;
    }
    EXPECT_LT(before, usual.mlp_width / 2);
    ModelConfig none = usual;
    none.layers = 0;
    EXPECT_EQ(preset_mlp_width(none), usual.mlp_width);
  }
}

// On a device without memory, and with none of the host.
TEST(LanguageModel, HasItsWeightsMadeOnItsDevice) {
  for (const std::string& mixer : mixer_names()) {
    const double on_host = PeakOfTensors::of([&] {
      LanguageModel model(preset("7b", mixer), torch::kMeta);
      for (const auto& item : model->named_parameters()) {
        EXPECT_TRUE(item.value().is_meta()) << item.key();
      }
    });
    EXPECT_LT(on_host, 1e4) << mixer;
  }
  EXPECT_TRUE(LanguageModel(ModelConfig{.width = 8})->parameters()[0].is_cpu());
}

}  // namespace
}  // namespace pararnn::nn
