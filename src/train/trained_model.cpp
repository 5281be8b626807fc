#include "train/trained_model.hpp"

#include "base/error.hpp"
#include "nn/model_files.hpp"
#include "train/checkpoint.hpp"
#include "train/memory.hpp"

namespace pararnn::train {

TrainedModel load_trained_model(const std::filesystem::path& path, bool trust_cell,
                                const torch::Device& device) {
  const std::filesystem::path folder = find_checkpoint(path);
  verify_checkpoint(folder, /*manifest_needed=*/false);
  const MemoryNeed need = model_memory(nn::load_model_config(folder, trust_cell), "model");
  require_memory(need, torch::kCPU);
  TrainedModel trained{nn::load_language_model(folder, trust_cell), data::load_tokenizer(folder)};
  if (!device.is_cpu()) run_within_memory(need, device, [&] { trained.model->to(device); });
  const int64_t vocabulary = trained.model->config().vocabulary;
  require(trained.tokenizer->vocabulary_size() == vocabulary,
          "{} holds a model of {} tokens and a tokenizer of {}: they do not belong together",
          folder.string(), vocabulary, trained.tokenizer->vocabulary_size());
  return trained;
}

}  // namespace pararnn::train
