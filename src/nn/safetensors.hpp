// safetensors: named tensors in one file that any language reads without running anything. Eight
// bytes give the length of a JSON header, the header gives every tensor's dtype, shape and place,
// and the rest is their values, row-major, little-endian and without gaps.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <map>
#include <string>

namespace pararnn::nn {

/// What such a file holds. Metadata is free text by name.
struct Safetensors {
  std::map<std::string, torch::Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Writes `contents` to `path`, aside first and then renamed, so that the file is always whole.
/// Dtypes: fp64, fp32, fp16, bf16, int64 to int8, uint8, bool; tensors of other devices and strides
/// are written by their values. Throws Error where it cannot write (an earlier file is then as it
/// was), and on another dtype.
void save_safetensors(const std::filesystem::path& path, const Safetensors& contents);

/// Reads the file. Throws Error, with the file and what is wrong in it, unless every byte is
/// accounted for.
Safetensors load_safetensors(const std::filesystem::path& path);

}  // namespace pararnn::nn
