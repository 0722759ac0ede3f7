// Groups of pixels times matrices of weights: the inner loop of every layer.
//
// A group is a handful of pixels that may lie anywhere: each comes as a pointer to its channels. So the pixels of many
// short runs of a sparse map fill the vector registers as well as those of one long row.
#pragma once

#include "tiles.h"

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

// Inputs that are summed in registers before the sum is added to the others: long chains of additions lose digits.
template <typename Element>
constexpr int kChain = std::max(128, kWord<Element>);

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

// Adds a term to sums[p][..] for `PX` pixels and the next panels, of `Whole` vectors and a half one if `half`; the first
// term begins them. The order of additions does not depend on the group, so results do not depend on how pixels are
// grouped. Nor do they on the rows that are left out, as long as inputs are finite: 0 times infinity is not computed.
template <int PX, int Whole, bool half, typename Element>
inline __attribute__((always_inline)) void multiply_panels(const Term<Element>& term, const Panels<Element>& panels,
                                                           bool begins, typename Multiply<Element>::Sum* sums,
                                                           int stride) {
  using M = Multiply<Element>;
  using Long = typename M::template Lanes<kVectorBytes>;
  using Short = typename M::template Lanes<kVectorBytes / 2>;
  constexpr int lanes = kLanes<Element>, width = Whole * lanes + half * lanes / 2;
  const Element* input[PX];
#pragma GCC unroll 14
  for (int p = 0; p < PX; ++p) input[p] = term.pixels[p];
  const Element* row = panels.rows();
  const uint64_t* steps = panels.steps();
  for (int begin = 0; begin < term.depth; begin += kChain<Element>) {
    typename Long::Sums whole[PX][Whole + 1] = {};
    typename Short::Sums rest[PX] = {};
    const int end = std::min(begin + kChain<Element>, term.depth);
    for (int first = begin; first < end; first += kWord<Element>)
      for (uint64_t left = *steps++; left != 0; left &= left - 1, row += width * M::kStep) {
        const int k = first + __builtin_ctzll(left) * M::kStep;
        typename Long::Weights w[Whole + 1];
        typename Short::Weights w_rest{};
#pragma GCC unroll 2
        for (int v = 0; v < Whole; ++v) w[v] = Long::load(row + v * lanes * M::kStep);
        if constexpr (half) w_rest = Short::load(row + Whole * lanes * M::kStep);
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
    const bool first = begins && begin == 0;
#pragma GCC unroll 14
    for (int p = 0; p < PX; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < Whole; ++v) accumulate(whole[p][v], first, sums + p * stride + v * lanes);
      if constexpr (half) accumulate(rest[p], first, sums + p * stride + Whole * lanes);
    }
  }
}

template <int PX, typename Element>
__attribute__((noinline)) void multiply_group(const Term<Element>* terms, int count, int outputs,
                                              typename Multiply<Element>::Sum* sums, int stride) {
  constexpr int lanes = kLanes<Element>;
  for (int t = 0; t < count; ++t) {
    Panels<Element> panels(terms[t].weights, outputs, terms[t].depth);
    for (int n = 0; n < outputs; n += panels.lanes(), panels.next()) {
      const int width = padded_outputs<Element>(std::min(outputs - n, panels.lanes()));
      if (width == 2 * lanes)
        multiply_panels<PX, 2, false>(terms[t], panels, t == 0, sums + n, stride);
      else if (width > lanes)
        multiply_panels<PX, 1, true>(terms[t], panels, t == 0, sums + n, stride);
      else if (width == lanes)
        multiply_panels<PX, 1, false>(terms[t], panels, t == 0, sums + n, stride);
      else
        multiply_panels<PX, 0, true>(terms[t], panels, t == 0, sums + n, stride);
    }
  }
}

// Group sizes that have code of their own; a smaller group repeats its first pixel up to the next of them.
constexpr int padded_group(int pixels) { return pixels <= 1 ? 1 : (pixels + 1) / 2 * 2; }

template <int PX, typename Element>
void multiply_vectors(const Term<Element>* terms, int count, int pixels, int outputs,
                      typename Multiply<Element>::Sum* sums, int stride) {
  constexpr int smaller = PX > 2 ? PX - 2 : 1;
  if constexpr (PX > 1)
    if (pixels <= smaller) return multiply_vectors<smaller>(terms, count, pixels, outputs, sums, stride);
  multiply_group<PX>(terms, count, outputs, sums, stride);
}

// sums [padded_group(pixels)][stride] = the sum of up to three terms; stride >= padded_outputs(outputs).
template <typename Element>
void multiply(const Term<Element>* terms, int count, int pixels, int outputs, typename Multiply<Element>::Sum* sums,
              int stride) {
  if constexpr (kHasTiles<Element>)
    multiply_tiles<Element>(terms, count, pixels, outputs, sums, stride);
  else
    multiply_vectors<kGroup>(terms, count, pixels, outputs, sums, stride);
}

}  // namespace sbnet::SBNET_ISA
