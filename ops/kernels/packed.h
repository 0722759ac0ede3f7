// Matrices of weights as the product loop of gemm.h reads them; rows of zeros are left out.
//
// Outputs come in panels of one vector (the last may be half of one), inputs in steps of Multiply::kStep; a step of a
// panel is a row. Panels are computed in pairs, where each input that is read meets two vectors of weights: the rows of
// a joined pair lie side by side, and both panels have a row if either needs it. Pairs are joined unless their panels
// alone need far fewer rows, as those of AVX-512 do whose weights are 0 for 16 outputs together.
#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace sbnet::SBNET_ISA {

template <typename Element>
constexpr int kLanes = kVectorBytes / sizeof(typename Multiply<Element>::Sum);

// Steps are marked in words of 64 bits; inputs that one tells of.
template <typename Element>
constexpr int kWord = 64 * Multiply<Element>::kStep;

// Outputs in whole halves of vectors, in whole tiles where there are such.
template <typename Element>
constexpr int padded_outputs(int outputs) {
  constexpr int least = kHasTiles<Element> ? kLanes<Element> : kLanes<Element> / 2;
  return (outputs + least - 1) / least * least;
}

// Inputs for which a matrix has room: those of whole tiles where there are such.
template <typename Element>
constexpr int padded_inputs(int depth) {
  constexpr int least = kHasTiles<Element> ? kTileRows * Multiply<Element>::kStep : 1;
  return (depth + least - 1) / least * least;
}

// Where the next panels of a packed matrix lie. In memory rows come first, those of a panel where they would begin if
// nothing was left out; then for each panel a word that says if it is joined with the next, and the words of its steps.
template <typename Element>
class Panels {
 public:
  Panels(const Element* packed, int outputs, int depth)
      : rows_(packed), words_(reinterpret_cast<const uint64_t*>(packed + all_rows(outputs, depth))), depth_(depth) {}

  // Size of a packed matrix, in numbers of `Element`.
  static constexpr int64_t size(int outputs, int depth) {
    const int64_t panels = (outputs + kLanes<Element> - 1) / kLanes<Element>;
    return all_rows(outputs, depth) + panels * words(depth) * kInWord;
  }

  bool joined() const { return *words_ != 0; }
  int lanes() const { return joined() ? 2 * kLanes<Element> : kLanes<Element>; }
  const Element* rows() const { return rows_; }
  const uint64_t* steps() const { return words_ + 1; }  // a bit for each: whether its row is there

  // Whether the words of the next of `left` panels are such as `pack` writes: no row of theirs lies beyond those panels.
  bool valid(int left) const {
    const int last = (depth_ / Multiply<Element>::kStep - 1) % 64;  // bit of the last step in the last word
    const uint64_t beyond = last == 63 ? 0 : ~uint64_t{0} << (last + 1);
    return *words_ <= (left > 1) && (words_[words(depth_) - 1] & beyond) == 0;
  }

  void next() {
    const int panels = joined() ? 2 : 1;
    rows_ += static_cast<int64_t>(panels) * kLanes<Element> * padded_inputs<Element>(depth_);
    words_ += panels * words(depth_);
  }

 private:
  static constexpr int64_t kInWord = sizeof(uint64_t) / sizeof(Element);

  static constexpr int64_t all_rows(int outputs, int depth) {
    const int64_t numbers = static_cast<int64_t>(padded_outputs<Element>(outputs)) * padded_inputs<Element>(depth);
    return (numbers + kInWord - 1) / kInWord * kInWord;
  }
  static constexpr int64_t words(int depth) { return 1 + (depth + kWord<Element> - 1) / kWord<Element>; }

  const Element* rows_;
  const uint64_t* words_;
  int depth_;
};

// The steps in which outputs [begin, end) of a matrix [outputs, depth] have a weight other than 0. In tiles all count:
// they multiply zeros faster than vectors leave them out.
template <typename Element, typename Sum>
std::vector<bool> needed_steps(const Sum* weights, int depth, int begin, int end) {
  std::vector<bool> needed((depth + Multiply<Element>::kStep - 1) / Multiply<Element>::kStep, kHasTiles<Element>);
  for (int n = begin; n < end; ++n)
    for (int k = 0; k < depth; ++k)
      if (weights[static_cast<int64_t>(n) * depth + k] != 0) needed[k / Multiply<Element>::kStep] = true;
  return needed;
}

// Whether a packed matrix can be read, whatever its weights are.
template <typename Element>
bool valid(const Element* packed, int outputs, int depth) {
  Panels<Element> panels(packed, outputs, depth);
  for (int left = (outputs + kLanes<Element> - 1) / kLanes<Element>; left > 0; panels.next()) {
    if (!panels.valid(left)) return false;
    left -= panels.joined() ? 2 : 1;
  }
  return true;
}

// Packs a matrix [outputs, depth] into Panels::size numbers; `convert` makes an Element of a weight.
template <typename Element, typename Sum, typename Convert>
void pack(const Sum* weights, int outputs, int depth, Element* packed, Convert convert) {
  constexpr int lanes = kLanes<Element>, step = Multiply<Element>::kStep;
  Panels<Element> panels(packed, outputs, depth);
  for (int begin = 0; begin < outputs; panels.next()) {
    // The next pair, joined unless its panels apart have less than 0.7 of the rows: one alone takes 1.4 times its share.
    const int middle = std::min(begin + lanes, outputs), both = std::min(begin + 2 * lanes, outputs);
    const auto rows_of = [&](int from, int to) {
      const std::vector<bool> needed = needed_steps<Element>(weights, depth, from, to);
      return std::count(needed.begin(), needed.end(), true);
    };
    const bool joined =
        both > middle && 10 * (rows_of(begin, middle) + rows_of(middle, both)) >= 7 * 2 * rows_of(begin, both);
    const int end = joined ? both : middle, width = padded_outputs<Element>(end - begin);

    auto* row = const_cast<Element*>(panels.rows());
    auto* const words = const_cast<uint64_t*>(panels.steps());
    words[-1] = joined;
    const std::vector<bool> needed = needed_steps<Element>(weights, depth, begin, end);
    for (size_t s = 0; s < needed.size(); ++s) {
      if (s % 64 == 0) words[s / 64] = 0;
      if (!needed[s]) continue;
      words[s / 64] |= uint64_t{1} << s % 64;
      for (int n = begin; n < begin + width; ++n)
        for (int i = 0; i < step; ++i)
          *row++ = convert(n < end ? weights[static_cast<int64_t>(n) * depth + s * step + i] : Sum{});
    }
    if constexpr (kHasTiles<Element>)
      std::fill(row, const_cast<Element*>(panels.rows()) + width * padded_inputs<Element>(depth), Element{});
    begin = end;
  }
}

}  // namespace sbnet::SBNET_ISA
