#include "nn/mixer.hpp"

#include <fmt/ranges.h>

#include <array>

#include "base/error.hpp"
#include "nn/mixers/rnn_mixer.hpp"

namespace pararnn::nn {
namespace {

struct Entry {
  const char* name;
  std::shared_ptr<Mixer> (*make)(const ModelConfig&);
};

template <class AMixer>
std::shared_ptr<Mixer> make(const ModelConfig& config) {
  return std::make_shared<AMixer>(config);
}

/// A new mixer is added here.
constexpr std::array kMixers{Entry{"rnn", make<RnnMixer>}};

}  // namespace

std::vector<std::string> mixer_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kMixers) names.push_back(entry.name);
  return names;
}

std::shared_ptr<Mixer> make_mixer(const ModelConfig& config) {
  for (const Entry& entry : kMixers) {
    if (config.mixer == entry.name) return entry.make(config);
  }
  throw Error(fmt::format("unknown mixer '{}': there are {}", config.mixer,
                          fmt::join(mixer_names(), ", ")));
}

}  // namespace pararnn::nn
