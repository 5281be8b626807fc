// The memory that a device has, and what is used of it.
#pragma once

#include <torch/types.h>

#include <filesystem>

namespace pararnn::train {

/// Bytes that this process can still get on a device: free memory of a GPU; of the host what is
/// free or can be freed, swap too, within the limits of the process's control groups. Infinite if
/// the system does not say.
double available_memory(const torch::Device& device);
/// The host's, as the files below these folders tell it.
double available_host_memory(const std::filesystem::path& proc,
                             const std::filesystem::path& control_groups);

/// The most bytes that tensors have taken at once on a GPU since the last reset; 0 on a CPU.
double peak_memory(const torch::Device& device);
void reset_peak_memory(const torch::Device& device);

/// Gives back to a GPU what LibTorch keeps of it for tensors to come.
void release_cached_memory(const torch::Device& device);

}  // namespace pararnn::train
