// Groups of pixels times matrices of weights: the inner loop of every layer.
//
// A group is a handful of pixels that may lie anywhere: each comes as a pointer to its channels. So the pixels of many
// short runs of a sparse map fill the vector registers as well as those of one long row.
#pragma once

#include "vectors.h"

namespace sbnet::SBNET_ISA {

// One term of a product: pixel p reads `depth` inputs at pixels[p], output n weighs them with row n of `weights`.
template <typename Element>
struct Term {
  const Element* const* pixels;
  const Element* weights;  // as `pack` leaves them
  int depth;               // a multiple of Multiply<Element>::kStep
};

// Pixels in a full group: with two vectors of sums each, two of weights and one input they fill the registers.
constexpr int kGroup = kRegisters == 32 ? 14 : 6;

template <typename Element>
constexpr int kLanes = kVectorBytes / sizeof(typename Multiply<Element>::Sum);

// Outputs are computed in panels: two vectors, one and a half, one, or a half. Width of the next of `left` outputs.
template <typename Element>
constexpr int panel_width(int left) {
  constexpr int lanes = kLanes<Element>;
  return left > lanes + lanes / 2 ? 2 * lanes : left > lanes ? lanes + lanes / 2 : left > lanes / 2 ? lanes : lanes / 2;
}

// All panels of `outputs` together.
template <typename Element>
constexpr int padded_outputs(int outputs) {
  int width = 0;
  while (width < outputs) width += panel_width<Element>(outputs - width);
  return width;
}

// Lays weights [outputs, depth] out as the kernel reads them: panel by panel, input by input.
template <typename Element, typename Weight, typename Convert>
void pack(const Weight* weights, int outputs, int depth, Element* packed, Convert convert) {
  constexpr int step = Multiply<Element>::kStep;
  for (int n = 0; n < outputs;) {
    const int width = panel_width<Element>(outputs - n);
    for (int k = 0; k < depth; k += step)
      for (int lane = 0; lane < width; ++lane)
        for (int i = 0; i < step; ++i)
          *packed++ = convert(n + lane < outputs ? weights[static_cast<int64_t>(n + lane) * depth + k + i] : 0);
    n += width;
  }
}

// Inputs that are summed in registers before the sum is added to the others: long chains of additions lose digits.
constexpr int kChain = 128;

// Calls body(t, begin, end) for the inputs of every term, at most kChain at a time.
template <typename Element, typename Body>
inline __attribute__((always_inline)) void for_each_chain(const Term<Element>* terms, int count, Body body) {
  for (int t = 0; t < count; ++t)
    for (int begin = 0; begin < terms[t].depth; begin += kChain)
      body(t, begin, begin + kChain < terms[t].depth ? begin + kChain : terms[t].depth);
}

// Adds the vector at `to` to `value`, unless this is the first that goes there, and leaves the sum.
template <typename Vector, typename Sum>
inline __attribute__((always_inline)) void accumulate(Vector value, bool first, Sum* to) {
  if (!first) {
    Vector before;
    std::memcpy(&before, to, sizeof before);
    value += before;
  }
  std::memcpy(to, &value, sizeof value);
}

// sums[p][..] for `PX` pixels and one panel: `Whole` vectors and a half one if `half`. The order of additions does not
// depend on the group, so results do not depend on how pixels are grouped.
template <int PX, int Whole, bool half, typename Element>
inline __attribute__((always_inline)) void multiply_panel(const Term<Element>* terms, int count, int first_lane,
                                                          typename Multiply<Element>::Sum* sums, int stride) {
  using M = Multiply<Element>;
  using Long = typename M::template Lanes<kVectorBytes>;
  using Short = typename M::template Lanes<kVectorBytes / 2>;
  constexpr int lanes = kLanes<Element>, width = Whole * lanes + half * lanes / 2;
  for_each_chain(terms, count, [&](int t, int begin, int end) __attribute__((always_inline)) {
    typename Long::Sums whole[PX][Whole + 1] = {};
    typename Short::Sums rest[PX] = {};
    const Element* input[PX];
#pragma GCC unroll 14
    for (int p = 0; p < PX; ++p) input[p] = terms[t].pixels[p];
    const Element* weights = terms[t].weights + static_cast<int64_t>(first_lane) * terms[t].depth + begin * width;
    for (int k = begin; k < end; k += M::kStep, weights += width * M::kStep) {
      typename Long::Weights w[Whole + 1];
      typename Short::Weights w_rest{};
#pragma GCC unroll 2
      for (int v = 0; v < Whole; ++v) w[v] = Long::load(weights + v * lanes * M::kStep);
      if constexpr (half) w_rest = Short::load(weights + Whole * lanes * M::kStep);
#pragma GCC unroll 14
      for (int p = 0; p < PX; ++p) {
        if constexpr (Whole > 0) {
          const auto in = Long::broadcast(input[p] + k);
#pragma GCC unroll 2
          for (int v = 0; v < Whole; ++v) whole[p][v] = Long::add(whole[p][v], w[v], in);
          if constexpr (half) {
            typename Short::Weights low;
            std::memcpy(&low, &in, sizeof low);
            rest[p] = Short::add(rest[p], w_rest, low);
          }
        } else {
          rest[p] = Short::add(rest[p], w_rest, Short::broadcast(input[p] + k));
        }
      }
    }
    const bool first = t == 0 && begin == 0;
#pragma GCC unroll 14
    for (int p = 0; p < PX; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < Whole; ++v) accumulate(whole[p][v], first, sums + p * stride + v * lanes);
      if constexpr (half) accumulate(rest[p], first, sums + p * stride + Whole * lanes);
    }
  });
}

template <int PX, typename Element>
__attribute__((noinline)) void multiply_group(const Term<Element>* terms, int count, int outputs,
                                              typename Multiply<Element>::Sum* sums, int stride) {
  constexpr int lanes = kLanes<Element>;
  for (int n = 0; n < outputs;) {
    const int width = panel_width<Element>(outputs - n);
    if (width == 2 * lanes)
      multiply_panel<PX, 2, false>(terms, count, n, sums + n, stride);
    else if (width > lanes)
      multiply_panel<PX, 1, true>(terms, count, n, sums + n, stride);
    else if (width == lanes)
      multiply_panel<PX, 1, false>(terms, count, n, sums + n, stride);
    else
      multiply_panel<PX, 0, true>(terms, count, n, sums + n, stride);
    n += width;
  }
}

// Group sizes that have code of their own; a smaller group repeats its first pixel up to the next of them.
constexpr int padded_group(int pixels) { return pixels <= 1 ? 1 : (pixels + 1) / 2 * 2; }

// sums [padded_group(pixels)][stride] = the sum of all terms; stride >= padded_outputs(outputs).
template <typename Element, int PX = kGroup>
void multiply(const Term<Element>* terms, int count, int pixels, int outputs, typename Multiply<Element>::Sum* sums,
              int stride) {
  constexpr int smaller = PX > 2 ? PX - 2 : 1;
  if constexpr (PX > 1)
    if (pixels <= smaller) return multiply<Element, smaller>(terms, count, pixels, outputs, sums, stride);
  multiply_group<PX>(terms, count, outputs, sums, stride);
}

}  // namespace sbnet::SBNET_ISA
