// What a cell says of itself, as text that any compiler can work out and any program can read: one
// `key value` a line. A cell says as much as it likes, in constants beside its sizes:
//
//   static constexpr const char* kSummary = "gated recurrent unit";
//   static constexpr const char* kStateNames[] = {"h"};
//   static constexpr const char* kInputNames[] = {"z", "r", "c"};
//   static constexpr const char* kParamNames[] = {"w_z", "w_r", "w_c"};
//   static constexpr int kSideInputs[] = {2};   // inputs that are no learned projections
//   static constexpr int kMemory[] = {0, -1};   // the input that drives the memory, and its sign;
//                                               // {-1, 0} for none; derived where it is not said
#pragma once

#include "pararnn/core/memory.hpp"

namespace pararnn {

/// Counts characters, and writes them where there is a place.
struct TextWriter {
  char* to = nullptr;
  int size = 0;

  constexpr void put(char c) {
    if (to) to[size] = c;
    ++size;
  }
  constexpr void put(const char* text) {
    while (*text) put(*text++);
  }
  constexpr void put(int number) {
    if (number < 0) put('-');
    const int size_of_it = number < 0 ? -number : number;
    if (size_of_it >= 10) put(size_of_it / 10);
    put(static_cast<char>('0' + size_of_it % 10));
  }
  template <class Value>
  constexpr void line(const char* key, const Value& value) {
    put(key), put(' '), put(value), put('\n');
  }
  template <class Item, int N>
  constexpr void line(const char* key, const Item (&items)[N]) {
    put(key);
    for (const Item& item : items) put(' '), put(item);
    put('\n');
  }
  constexpr void line(const char* key) { put(key), put('\n'); }
};

template <class Item, int N>
constexpr int length(const Item (&)[N]) {
  return N;
}

/// Whether all names are of letters, digits and underscores.
template <int N>
constexpr bool are_words(const char* const (&names)[N]) {
  for (const char* name : names) {
    if (!*name) return false;
    for (; *name; ++name) {
      const char c = *name, lower = static_cast<char>(c | 0x20);
      if (!(c >= '0' && c <= '9') && !(lower >= 'a' && lower <= 'z') && c != '_') return false;
    }
  }
  return true;
}

constexpr bool is_one_line(const char* text) {
  for (; *text; ++text) {
    if (*text == '\n') return false;
  }
  return true;
}

/// Whether all numbers are inputs of the cell, or -1 where that means none.
template <Cell C, int N>
constexpr bool are_inputs(const int (&inputs)[N]) {
  for (const int i : inputs) {
    if (i < 0 || i >= C::kInputs) return false;
  }
  return true;
}

#define PARARNN_NAMES_LINE(key, kNames, kCount)                                                \
  if constexpr (requires { C::kNames[0]; }) {                                                  \
    static_assert(length(C::kNames) == C::kCount, "as many names in " #kNames " as " #kCount); \
    static_assert(are_words(C::kNames),                                                        \
                  "names in " #kNames " are of letters, digits and underscores");              \
    text.line(key, C::kNames);                                                                 \
  } else {                                                                                     \
    text.line(key);                                                                            \
  }

template <Cell C>
constexpr int describe(TextWriter text) {
  text.line("state", C::kState);
  text.line("inputs", C::kInputs);
  text.line("params", C::kParams);
  if constexpr (requires { C::kMemory[0]; }) {
    static_assert(
        length(C::kMemory) == 2 && C::kMemory[0] >= -1 && C::kMemory[0] < C::kInputs &&
            (C::kMemory[0] < 0 ? C::kMemory[1] == 0 : C::kMemory[1] == 1 || C::kMemory[1] == -1),
        "kMemory is {input, 1}, {input, -1}, or {-1, 0} for none");
  }
  text.line("memory_input", kMemoryOf<C>.input);
  text.line("memory_direction", kMemoryOf<C>.direction);
  if constexpr (requires { C::kSideInputs[0]; }) {
    static_assert(are_inputs<C>(C::kSideInputs), "kSideInputs are numbers of inputs, from 0");
    text.line("side_inputs", C::kSideInputs);
  } else {
    text.line("side_inputs");
  }
  PARARNN_NAMES_LINE("state_names", kStateNames, kState)
  PARARNN_NAMES_LINE("input_names", kInputNames, kInputs)
  PARARNN_NAMES_LINE("param_names", kParamNames, kParams)
  if constexpr (requires { C::kSummary[0]; }) {
    static_assert(is_one_line(C::kSummary), "kSummary is one line");
    text.put("summary");
    if (C::kSummary[0]) text.put(' '), text.put(static_cast<const char*>(C::kSummary));
    text.put('\n');
  } else {
    text.line("summary");
  }
  text.put('\0');
  return text.size;
}
#undef PARARNN_NAMES_LINE

template <Cell C>
constexpr auto description_of() {
  Vec<char, describe<C>({})> text{};
  describe<C>({text.data});
  return text;
}

/// The description of a cell, its last character '\0'.
template <Cell C>
inline constexpr auto kDescription = description_of<C>();

}  // namespace pararnn
